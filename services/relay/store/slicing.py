"""Splits many rows into slices by their size in bytes, so that no statement and no page takes unbounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def slices(rows: Sequence[T], bytes_max: int, size: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """All of `rows` in their order. Each slice has up to `bytes_max`, or is a single larger row."""
    start = total = 0
    for index, row in enumerate(rows):
        row_bytes = size(row)
        if index > start and total + row_bytes > bytes_max:
            yield rows[start:index]
            start, total = index, 0
        total += row_bytes
    if start < len(rows):
        yield rows[start:]


def beginning(rows: Sequence[T], bytes_max: int, size: Callable[[T], int]) -> Sequence[T]:
    """The first slice."""
    return next(slices(rows, bytes_max, size), rows)
