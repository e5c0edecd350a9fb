"""Bodies received, stored and sent. Small ones are held in memory, large ones in stored pieces, a few at a time.

The other side may stop in the middle of a transfer. So the places for large bodies are shared by origin and by token, a
transfer without progress ends, and a transfer that fails leaves no pieces behind.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import assert_never

from services.relay.egress.http.faults import NoAnswerError
from services.relay.engine.discards import Discards
from services.relay.engine.sending import Sending
from services.relay.memory.byte_budget import NoRoomError
from services.relay.memory.memory import Memory
from services.relay.message import (
    ANSWER_INLINE_BYTES_MAX,
    INLINE_BYTES_MAX,
    Body,
    Draft,
    Encoded,
    Piece,
    Stored,
    Unencoded,
    Unstored,
)
from services.relay.store.chunks import PIECE_BYTES, Chunks, KeptAnswer, Writer
from services.relay.store.time_limit import extended, paused_limit

# The first reservation for an answer of unknown size. Each further one is twice the bytes received so far.
ANSWER_ROOM_BYTES = 128 * 1024
# An answer waits this long for memory. It is then stored in pieces instead.
ANSWER_ROOM_SECONDS = 30.0
# An upload waits for a place as long as clients wait for an answer. A reader of a kept answer waits for a shorter time,
# as it can retry at once.
UPLOAD_SECONDS = 30.0
READER_SECONDS = 10.0
# The longest pause between two pieces of an answer that is stored. A model thinks before its first byte; a server that
# streams for this long sends something every few seconds.
STALL_SECONDS = 120.0


class TooLargeError(Exception):
    """The body is larger than the limit: 413."""


@dataclass(frozen=True)
class Incoming:
    """An answer that is being read: `start` is its beginning, `rest` the pieces after it. The memory for it has the key
    `key`, and counts under the name `origin`.
    """

    key: Hashable
    origin: str
    start: bytearray
    rest: AsyncIterator[bytes]


class Bodies:
    """`bytes_max` is RELAY_BODY_BYTES_MAX, and `memory` is the budget of the process. `token` and `origin` name the
    owner of a place for a large body.
    """

    def __init__(
        self, chunks: Chunks, bytes_max: int, memory: Memory | None = None, *, stall_seconds: float = STALL_SECONDS
    ) -> None:
        self.memory = memory or Memory()
        self._chunks = chunks
        self._bytes_max = bytes_max
        self._stall_seconds = stall_seconds
        self._held, self._places = self.memory.answers, self.memory.transfers
        self._discards = Discards(chunks)

    async def take(self, stream: AsyncIterable[bytes], content_length: int | None, token: str) -> Body:
        """Read a request's body. A large one is stored when this returns, but kept only once a message refers to it.

        Raises `TooLargeError` (before it reads anything, when `content_length` shows it), `NoPlaceError`, and what
        `stream` raises.
        """
        if content_length is not None and content_length > self._bytes_max:
            raise TooLargeError(f"the body is larger than {self._bytes_max} bytes")
        start = bytearray()
        pieces = aiter(stream)
        async for piece in pieces:
            start += piece
            if len(start) > INLINE_BYTES_MAX:
                return await self._store(bytes(start), pieces, token)
        return bytes(start)

    async def keep(self, content: bytes) -> Body:
        """Convert a body that is in memory: unchanged, or stored when it is too large for a row."""
        return content if len(content) <= INLINE_BYTES_MAX else await self.store(content)

    async def store(self, content: bytes) -> Stored:
        """Store a body that is known to be too large for a row. This takes no place, as the caller has counted the
        bytes.
        """
        async with self._writing() as writer:
            await writer.write(content)
            return await writer.close()

    async def _store(self, start: bytes, rest: AsyncIterator[bytes], token: str) -> Stored:
        async with self._places.taking.place(token, UPLOAD_SECONDS), self._writing() as writer:
            piece = start
            while piece:
                if writer.size + len(piece) > self._bytes_max:
                    raise TooLargeError(f"the body is larger than {self._bytes_max} bytes")
                await writer.write(piece)
                piece = await anext(rest, b"")
            return await writer.close()

    @asynccontextmanager
    async def _writing(self, limit: asyncio.Timeout | None = None) -> AsyncIterator[Writer]:
        """A writer of a new body. Its pieces are removed when the block fails. `limit`: see `Chunks.writer`."""
        writer = self._chunks.writer(limit)
        try:
            yield writer
        except BaseException:
            self.discard([writer.key])
            raise

    async def release(self, *keys: str) -> None:
        """Remove stored bodies, unless a message, dead letter or kept answer refers to them."""
        await self._chunks.release(keys)

    def discard(self, keys: Sequence[str]) -> None:
        """Release stored bodies in the background."""
        self._discards.add(keys)

    def sending(self, stored: Stored, origin: str) -> Sending:
        """The transfer of a stored body to `origin`."""
        return Sending(self._chunks, stored, self._places.sending, origin)

    async def hold(self, incoming: Incoming, size: int | None, limit: asyncio.Timeout | None = None) -> bool:
        """Continue reading an answer into its `start`, while it is small enough to hold in memory. Returns whether the
        answer is complete.

        `size` is the length that the head declares. Without it the reservation grows with the answer, since many
        answers that stream for a minute are small. When memory is full this waits, and the other side waits to send
        more, for at most ANSWER_ROOM_SECONDS at a time, and `limit`, the time limit of the call, is paused. The memory
        it takes has the key of the answer. Raises `NoAnswerError` when the other side sends no more of it.
        """
        bytes_max = min(ANSWER_INLINE_BYTES_MAX, self._bytes_max)
        if size is not None and size > bytes_max:
            return False
        start, reserved = incoming.start, 0
        while len(start) <= bytes_max:
            if len(start) >= reserved:
                reserved = size or min(max(2 * len(start), ANSWER_ROOM_BYTES), bytes_max)
                try:
                    with paused_limit(limit):
                        await self._held.take(incoming.key, reserved, incoming.origin, ANSWER_ROOM_SECONDS)
                except NoRoomError:
                    break
            piece = await self._next(incoming.rest)
            if not piece:
                return True
            start += piece
        return False

    async def spool(self, incoming: Incoming, bytes_max: int, limit: asyncio.Timeout) -> tuple[Stored, bool]:
        """Store an answer up to `bytes_max`. Also returns whether there was more. The memory that `hold` took is given
        back, and `start` is empty afterwards. This waits as long as the database is away, and `limit`, the time limit
        of the call, is paused meanwhile: the answer has arrived and is paid for. The same holds while it waits for a
        place. Otherwise that wait counts, as the destination itself may have all its places.

        Raises `NoAnswerError` when the other side sends no more of it.
        """
        async with self._writing(limit) as writer:
            cut = len(incoming.start) > bytes_max
            del incoming.start[bytes_max:]
            with paused_limit(limit):
                await self._begin(writer, incoming)
            with extended(limit, lambda: self._chunks.silence.seconds):
                place = await self._places.spooling.take(incoming.origin, None)
            try:
                while not cut and (piece := await self._next(incoming.rest)):
                    left = bytes_max - writer.size
                    await writer.write(piece[:left])
                    cut = len(piece) > left
                return await writer.close(), cut
            finally:
                place.release()

    async def _begin(self, writer: Writer, incoming: Incoming) -> None:
        """Store the beginning of an answer, which may then wait for a place for hours, like many others. Until it is
        stored, its memory counts under no name, so that other answers of its origin cannot delay it.
        """
        self._held.hold(incoming.key, len(incoming.start))
        try:
            async with self._places.beginning:
                await writer.write(incoming.start)
                incoming.start.clear()
                if not self._places.spooling.ready(incoming.origin):
                    await writer.flush()
        finally:
            self._held.give(incoming.key)

    async def _next(self, rest: AsyncIterator[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._stall_seconds):
                return await anext(rest, b"")
        except TimeoutError:
            raise NoAnswerError(f"no further data of the answer arrived for {self._stall_seconds:g} s") from None

    async def compose(self, draft: Draft) -> Draft:
        """Store the body of a draft if it must be composed. Raises `MissingPieceError`."""
        if not isinstance(draft.body, Unstored):
            return draft
        async with self._places.composing, self._writing() as writer:
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

    async def compose_all(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Do the same for several drafts: all or none."""
        composed: list[Draft] = []
        try:
            for draft in drafts:
                composed.append(await self.compose(draft))  # noqa: PERF401  the handler below needs the partial list
        except BaseException:
            self.discard(stored_keys(composed))
            raise
        return composed

    async def kept(self, message_id: str, attempt: int) -> KeptAnswer | None:
        """`GET /v2/messages/{id}/body/{attempt}`: the whole of an answer that was too large for its callback."""
        return await self._chunks.answer(message_id, attempt)

    def reading(self, token: str) -> AbstractAsyncContextManager[None]:
        """A place for `read`. Entering it raises `NoPlaceError`."""
        return self._places.reading.place(token, READER_SECONDS)

    def read(self, answer: KeptAnswer) -> AsyncGenerator[bytes, None]:
        """A kept answer, a piece at a time. Raises `MissingPieceError`."""
        return self._chunks.read(answer.key, answer.size, tries_max=1)


def stored_keys(drafts: Sequence[Draft]) -> list[str]:
    """The keys of those of these bodies that are stored."""
    return [draft.body.key for draft in drafts if isinstance(draft.body, Stored)]
