"""Many rows cut into some at a time by the bytes they have, so that no statement and no page takes memory without limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def slices(rows: Sequence[T], bytes_max: int, size: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """All of `rows` in their order; each slice has up to `bytes_max`, or is a single row that is larger."""
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
