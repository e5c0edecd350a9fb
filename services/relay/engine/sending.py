"""A stored body on its way to a destination, which may come to a stand in the middle of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from services.relay.memory.shares import Place, Shares
from services.relay.message import Stored
from services.relay.store.chunks import Chunks

# A delivery waits so long for a place. It has its connection by then, and servers close one that says nothing after 5 s (Node)
# to a minute.
SENDING_SECONDS = 4.0


class Sending:
    """`begin` comes before the request's head, as once that is sent the message's fate is open; `pieces` is its body. The
    place is given back at the body's end, or by `end`.
    """

    def __init__(self, chunks: Chunks, stored: Stored, shares: Shares, origin: str) -> None:
        """`origin` is in whose name a place of `shares` is taken."""
        self._chunks = chunks
        self._stored = stored
        self._shares = shares
        self._origin = origin
        self._place: Place | None = None

    async def begin(self, seconds: float) -> None:
        """Raises `NoPlaceError`, after `seconds` at the latest."""
        self._place = await self._shares.take(self._origin, min(seconds, SENDING_SECONDS))

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Raises `MissingPieceError`."""
        try:
            async for piece in self._chunks.read(self._stored.key, self._stored.size):
                yield piece
        finally:
            self.end()

    def end(self) -> None:
        """Give the place back, once."""
        if self._place is not None:
            self._place.release()
