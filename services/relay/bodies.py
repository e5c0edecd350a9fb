"""Bodies on their way in, through and out: small ones in memory, large ones in stored pieces, a few at once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from dataclasses import dataclass, replace

from services.relay.message import Draft, Encoded, Stored
from services.relay.store.chunks import Chunks, KeptAnswer

# A body up to this goes into the message's row. Calls to AI services are smaller, and rows stay cheap to move about;
# a larger one would be read from the database and held in memory with each claim.
INLINE_BYTES_MAX = 64 * 1024
# An answer up to this is held in memory until it is written: most are, and it saves four statements each. It is also
# as much as is looked at for an error (JUDGED_BYTES_MAX).
ANSWER_INLINE_BYTES_MAX = 1024 * 1024
# Large bodies that move at once, in each direction; each holds a piece or two, and buffers of the two connections.
TRANSFERS_MAX = 16


class TooLargeError(Exception):
    """The body is larger than is accepted: 413."""


@dataclass(frozen=True)
class Inline:
    content: bytes


Taken = Inline | Stored


class Bodies:
    """`bytes_max`: RELAY_BODY_BYTES_MAX."""

    def __init__(self, chunks: Chunks, bytes_max: int) -> None:
        self._chunks = chunks
        self._bytes_max = bytes_max
        self._taking = asyncio.Semaphore(TRANSFERS_MAX)
        self._sending = asyncio.Semaphore(TRANSFERS_MAX)
        self._spooling = asyncio.Semaphore(TRANSFERS_MAX)
        self._composing = asyncio.Semaphore(TRANSFERS_MAX)

    async def take(self, stream: AsyncIterable[bytes], content_length: int | None) -> Taken:
        """Read a request's body; a large one is stored when this returns, but kept only once a message names it.

        Raises `TooLargeError`, before anything is read when `content_length` says so, and what `stream` raises.
        """
        if content_length is not None and content_length > self._bytes_max:
            raise TooLargeError(f"the body is larger than {self._bytes_max} bytes")
        start = bytearray()
        pieces = aiter(stream)
        async for piece in pieces:
            start += piece
            if len(start) > INLINE_BYTES_MAX:
                return await self._store(bytes(start), pieces)
        return Inline(bytes(start))

    async def _store(self, start: bytes, rest: AsyncIterator[bytes]) -> Stored:
        async with self._taking:
            writer = self._chunks.writer()
            piece = start
            while piece:
                if writer.size + len(piece) > self._bytes_max:
                    await self.release(writer.key)
                    raise TooLargeError(f"the body is larger than {self._bytes_max} bytes")
                await writer.write(piece)
                piece = await anext(rest, b"")
            return await writer.close()

    async def release(self, *keys: str) -> None:
        """Remove stored bodies, unless a message, dead letter or kept answer names them."""
        await self._chunks.release(keys)

    async def send(self, stored: Stored) -> AsyncGenerator[bytes, None]:
        """A stored body for a delivery, a piece at a time. Raises `MissingPieceError`."""
        async with self._sending:
            async for piece in self._chunks.read(stored.key, stored.size):
                yield piece

    async def spool(self, start: bytes, rest: AsyncIterator[bytes], bytes_max: int) -> tuple[Stored, bool]:
        """Store an answer of which `start` is read already, up to `bytes_max`; and whether there was more."""
        async with self._spooling:
            writer = self._chunks.writer()
            await writer.write(start[:bytes_max])
            cut = len(start) > bytes_max
            while not cut and (piece := await anext(rest, b"")):
                room = bytes_max - writer.size
                await writer.write(piece[:room])
                cut = len(piece) > room
            return await writer.close(), cut

    async def compose(self, draft: Draft) -> Draft:
        """Store the body of a draft that is to be put together, if it is. Raises `MissingPieceError`."""
        if not draft.pieces:
            return draft
        async with self._composing:
            writer = self._chunks.writer()
            for piece in draft.pieces:
                if isinstance(piece, Encoded):
                    async for content in self._chunks.read(piece.key, piece.size):
                        await writer.write(base64.b64encode(content))
                else:
                    await writer.write(piece)
            stored = await writer.close()
        return with_body(replace(draft, pieces=()), stored)

    async def kept(self, message_id: str, attempt: int) -> tuple[KeptAnswer, AsyncIterator[bytes]] | None:
        """`GET /v2/messages/{id}/body/{attempt}`: the whole of an answer that its callback had no room for."""
        answer = await self._chunks.answer(message_id, attempt)
        return None if answer is None else (answer, self.send(Stored(answer.key, answer.size, b"")))


def with_body(draft: Draft, taken: Taken) -> Draft:
    """`draft`, which was made with `inline_part(taken)`, with the body that was taken."""
    if isinstance(taken, Inline):
        return draft
    deduplication_id = draft.deduplication_id
    if deduplication_id is not None and deduplication_id.startswith("content:"):
        deduplication_id = f"content:{hashlib.sha256(deduplication_id.encode() + taken.sha256).hexdigest()}"
    return replace(
        draft,
        body=b"",
        body_key=taken.key,
        body_size=taken.size,
        body_sha256=taken.sha256,
        deduplication_id=deduplication_id,
    )


def inline_part(taken: Taken) -> bytes:
    """What a draft is made with: the body, or nothing when it is stored and `with_body` adds it."""
    return taken.content if isinstance(taken, Inline) else b""
