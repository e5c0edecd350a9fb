"""An answer as it is handed over: whole, or its beginning and what follows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Response:
    """`headers` in the order and case in which they came; bytes that are no UTF-8 are kept as surrogates.

    `body` is the whole body when `rest` is None, else its beginning, and `rest` has what follows, piece by piece; it
    raises `NoAnswerError` when the other side ends before the answer does. The beginning belongs to the reader, who clears
    it once it is stored: the connection keeps this object for as long as the exchange lasts.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes | bytearray
    rest: AsyncIterator[bytes] | None = None
