"""Bodies on their way in, through and out: small ones in memory, large ones in stored pieces, a few at once."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from dataclasses import replace
from typing import assert_never

from services.relay.memory import Memory, NoRoomError
from services.relay.message import INLINE_BYTES_MAX, Body, Draft, Encoded, Piece, Stored, Unencoded, Unstored
from services.relay.store.chunks import PIECE_BYTES, Chunks, KeptAnswer, Writer

# An answer up to this is held in memory until what follows from it is written. It is as much as is looked at for an error
# (JUDGED_BYTES_MAX).
ANSWER_INLINE_BYTES_MAX = 1024 * 1024
# So long an answer waits for room in memory before it is stored in pieces instead.
ANSWER_ROOM_SECONDS = 30.0


class TooLargeError(Exception):
    """The body is larger than is accepted: 413."""


class Bodies:
    """`bytes_max`: RELAY_BODY_BYTES_MAX."""

    def __init__(self, chunks: Chunks, bytes_max: int, memory: Memory | None = None) -> None:
        memory = memory or Memory()
        self._chunks = chunks
        self._bytes_max = bytes_max
        self._held = memory.answers
        self._taking = asyncio.Semaphore(memory.transfers)
        self._sending = asyncio.Semaphore(memory.transfers)
        self._spooling = asyncio.Semaphore(memory.transfers)
        self._composing = asyncio.Semaphore(memory.transfers)

    async def take(self, stream: AsyncIterable[bytes], content_length: int | None) -> Body:
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
        return bytes(start)

    async def keep(self, content: bytes) -> Body:
        """A body that is in memory already: as it is, or stored when it is too large for a row."""
        return content if len(content) <= INLINE_BYTES_MAX else await self.store(content)

    async def store(self, content: bytes) -> Stored:
        """The same of one that is known to be too large."""
        writer = self._chunks.writer()
        await writer.write(content)
        return await writer.close()

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

    async def hold(
        self, key: str, origin: str, start: bytes, rest: AsyncIterator[bytes], size: int | None
    ) -> tuple[bytes, bool]:
        """All of an answer of which `start` is read already, when it is small enough to be held, and whether it is all.

        `size` is what its head says. It waits for room, while the other side waits to send more; the room that it takes has
        the key `key`.
        """
        bytes_max = min(ANSWER_INLINE_BYTES_MAX, self._bytes_max)
        if size is not None and size > bytes_max:
            return start, False
        try:
            await self._held.take(key, bytes_max if size is None else size, origin, ANSWER_ROOM_SECONDS)
        except NoRoomError:
            return start, False
        whole = bytearray(start)
        while len(whole) <= bytes_max:
            piece = await anext(rest, b"")
            if not piece:
                return bytes(whole), True
            whole += piece
        return bytes(whole), False

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
        if not isinstance(draft.body, Unstored):
            return draft
        async with self._composing:
            writer = self._chunks.writer()
            for piece in draft.body.pieces:
                await self._write(writer, piece)
            return replace(draft, body=await writer.close())

    async def _write(self, writer: Writer, piece: Piece) -> None:
        match piece:
            case Encoded():
                async for content in self._chunks.read(piece.key, piece.size):
                    await writer.write(base64.b64encode(content))
            case Unencoded():
                view = memoryview(piece.content)
                for start in range(0, len(view), PIECE_BYTES):
                    await writer.write(base64.b64encode(view[start : start + PIECE_BYTES]))
            case bytes():
                await writer.write(piece)
            case _:
                assert_never(piece)

    async def kept(self, message_id: str, attempt: int) -> tuple[KeptAnswer, AsyncIterator[bytes]] | None:
        """`GET /v2/messages/{id}/body/{attempt}`: the whole of an answer that its callback had no room for."""
        answer = await self._chunks.answer(message_id, attempt)
        return None if answer is None else (answer, self.send(Stored(answer.key, answer.size, b"")))
