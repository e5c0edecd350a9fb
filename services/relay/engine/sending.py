"""The transfer of a stored body to a destination, which may stop in the middle."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from services.relay.memory.places import Place, Places
from services.relay.message import Stored
from services.relay.store.chunks import Chunks

# The longest wait of a delivery for a place. It has its connection by then, and servers close a silent connection after
# 5 s (Node) to a minute.
SENDING_SECONDS = 4.0


class Sending:
    """`begin` must be called before the request's head is sent, as the outcome is unknown from then on. `pieces` is the
    body. The place is given back at the end of the body, or by `end`.
    """

    def __init__(self, chunks: Chunks, stored: Stored, shares: Places, origin: str) -> None:
        """`origin` is the name under which a place of `shares` is taken."""
        self._chunks = chunks
        self._stored = stored
        self._shares = shares
        self._origin = origin
        self._place: Place | None = None

    async def begin(self, seconds: float) -> None:
        """Take a place. Raises `NoPlaceError`, after `seconds` at the latest."""
        self._place = await self._shares.take(self._origin, min(seconds, SENDING_SECONDS))

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body, piece by piece. Raises `MissingPieceError`."""
        try:
            async for piece in self._chunks.read(self._stored.key, self._stored.size):
                yield piece
        finally:
            self.end()

    def end(self) -> None:
        """Give the place back, once."""
        if self._place is not None:
            self._place.release()
