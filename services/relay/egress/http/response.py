"""An answer as handed over: whole, or its beginning and the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Response:
    """`headers` are in the order and case received. Bytes that are not UTF-8 are kept as surrogates.

    `body` is the whole body when `rest` is None. Otherwise it is the beginning, and `rest` gives what follows, piece by
    piece. `rest` raises `NoAnswerError` when the other side closes before the answer ends. The beginning belongs to the
    reader, which clears it once it is stored: the connection keeps this object for the duration of the exchange.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes | bytearray
    rest: AsyncIterator[bytes] | None = None
