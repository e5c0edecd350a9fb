"""Bodies on their way in, through and out: small ones in memory, large ones in stored pieces, a few at once.

Whoever is at the other end may come to a stand in the middle of one. So the places for large ones are shared by origin
and by token, a transfer without progress ends, and one that does not end well leaves no pieces behind.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace

import psycopg

from services.relay.http.faults import NoAnswerError
from services.relay.message import Draft, Encoded, Stored
from services.relay.sending import Sending
from services.relay.shares import Shares
from services.relay.store.chunks import Chunks, KeptAnswer, Writer

# A body up to this goes into the message's row. Calls to AI services are smaller, and rows stay cheap to move about;
# a larger one would be read from the database and held in memory with each claim.
INLINE_BYTES_MAX = 64 * 1024
# An answer up to this is held in memory until it is written: most are, and it saves four statements each. It is also
# as much as is looked at for an error (JUDGED_BYTES_MAX).
ANSWER_INLINE_BYTES_MAX = 1024 * 1024
# Large bodies that move at once, in each direction; each holds a piece or two, and buffers of the two connections: 2 MB.
TRANSFERS_MAX = 64
# Requests that wait for that, of which each holds some 200 KB; one token may have a fifth. More are told to come again.
WAITING_MAX = 1000
# An upload waits as long for a place as clients wait for an answer; whoever reads a kept answer can come again at once.
UPLOAD_SECONDS = 30.0
READER_SECONDS = 10.0
# Callbacks that are put together at once. They wait for nobody but the database.
COMPOSING_MAX = 16
# Between two pieces of an answer of more than ANSWER_INLINE_BYTES_MAX. A model that thinks does so at the beginning, and who
# streams for so long sends something every few seconds.
STALL_SECONDS = 120.0
# Pieces of what did not end well are removed within this, or by the janitor.
DISCARD_SECONDS = 30.0
DISCARD_TRIES = 5
DISCARD_PAUSE_SECONDS = 2.0


class TooLargeError(Exception):
    """The body is larger than is accepted: 413."""


@dataclass(frozen=True)
class Inline:
    content: bytes


Taken = Inline | Stored


class Bodies:
    """`bytes_max`: RELAY_BODY_BYTES_MAX; `calls_max`: deliveries that may wait for a place. `token` and `origin` say in
    whose name one is taken.
    """

    def __init__(
        self, chunks: Chunks, bytes_max: int, *, calls_max: int = 5000, stall_seconds: float = STALL_SECONDS
    ) -> None:
        self._chunks = chunks
        self._bytes_max = bytes_max
        self._stall_seconds = stall_seconds
        self._taking = Shares(TRANSFERS_MAX, WAITING_MAX)
        self._sending = Shares(TRANSFERS_MAX, calls_max)
        # An answer that was paid for is not refused: its call waits, as long as it may.
        self._spooling = Shares(TRANSFERS_MAX, sys.maxsize)
        self._reading = Shares(TRANSFERS_MAX, WAITING_MAX)
        self._composing = asyncio.Semaphore(COMPOSING_MAX)
        self._discarding: set[asyncio.Task[None]] = set()

    async def take(self, stream: AsyncIterable[bytes], content_length: int | None, token: str) -> Taken:
        """Read a request's body; a large one is stored when this returns, but kept only once a message names it.

        Raises `TooLargeError`, before anything is read when `content_length` says so, `NoPlaceError`, and what `stream`
        raises.
        """
        if content_length is not None and content_length > self._bytes_max:
            raise TooLargeError(f"the body is larger than {self._bytes_max} bytes")
        start = bytearray()
        pieces = aiter(stream)
        async for piece in pieces:
            start += piece
            if len(start) > INLINE_BYTES_MAX:
                return await self._store(bytes(start), pieces, token)
        return Inline(bytes(start))

    async def _store(self, start: bytes, rest: AsyncIterator[bytes], token: str) -> Stored:
        async with self._taking.place(token, UPLOAD_SECONDS), self._writing() as writer:
            piece = start
            while piece:
                if writer.size + len(piece) > self._bytes_max:
                    raise TooLargeError(f"the body is larger than {self._bytes_max} bytes")
                await writer.write(piece)
                piece = await anext(rest, b"")
            return await writer.close()

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[Writer]:
        """A writer of a new body, whose pieces are removed when the block does not end well."""
        writer = self._chunks.writer()
        try:
            yield writer
        except BaseException:
            self.discard([writer.key])
            raise

    async def release(self, *keys: str) -> None:
        """Remove stored bodies, unless a message, dead letter or kept answer names them."""
        await self._chunks.release(keys)

    def discard(self, keys: Sequence[str]) -> None:
        """Release them beside what goes on: whoever is cancelled has no time for it."""
        if keys:
            task = asyncio.create_task(self._discard(keys))
            self._discarding.add(task)
            task.add_done_callback(self._discarding.discard)

    async def _discard(self, keys: Sequence[str]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                for _ in range(DISCARD_TRIES):
                    try:
                        await self._chunks.release(keys)
                    except psycopg.Error:
                        await asyncio.sleep(DISCARD_PAUSE_SECONDS)
                    else:
                        return

    def sending(self, stored: Stored, origin: str) -> Sending:
        """A stored body on its way to `origin`."""
        return Sending(self._chunks, stored, self._sending, origin)

    async def spool(self, start: bytes, rest: AsyncIterator[bytes], bytes_max: int, origin: str) -> tuple[Stored, bool]:
        """Store an answer of which `start` is read already, up to `bytes_max`; and whether there was more.

        Raises `NoAnswerError` when no more of it comes.
        """
        async with self._spooling.place(origin, None), self._writing() as writer:
            await writer.write(start[:bytes_max])
            cut = len(start) > bytes_max
            while not cut and (piece := await self._next(rest)):
                room = bytes_max - writer.size
                await writer.write(piece[:room])
                cut = len(piece) > room
            return await writer.close(), cut

    async def _next(self, rest: AsyncIterator[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._stall_seconds):
                return await anext(rest, b"")
        except TimeoutError:
            raise NoAnswerError(f"nothing more of the answer came for {self._stall_seconds:g} s") from None

    async def compose(self, draft: Draft) -> Draft:
        """Store the body of a draft that is to be put together, if it is. Raises `MissingPieceError`."""
        if not draft.pieces:
            return draft
        async with self._composing, self._writing() as writer:
            for piece in draft.pieces:
                if isinstance(piece, Encoded):
                    async for content in self._chunks.read(piece.key, piece.size):
                        await writer.write(base64.b64encode(content))
                else:
                    await writer.write(piece)
            stored = await writer.close()
        return with_body(replace(draft, pieces=()), stored)

    async def compose_all(self, drafts: Sequence[Draft]) -> list[Draft]:
        """The same of several, all or none."""
        composed: list[Draft] = []
        try:
            for draft in drafts:
                composed.append(await self.compose(draft))  # noqa: PERF401  what is done so far is needed below
        except BaseException:
            self.discard([draft.body_key for draft in composed if draft.body_key is not None])
            raise
        return composed

    async def kept(self, message_id: str, attempt: int) -> KeptAnswer | None:
        """`GET /v2/messages/{id}/body/{attempt}`: the whole of an answer that its callback had no room for."""
        return await self._chunks.answer(message_id, attempt)

    def reading(self, token: str) -> AbstractAsyncContextManager[None]:
        """A place for `read`. Entering it raises `NoPlaceError`."""
        return self._reading.place(token, READER_SECONDS)

    def read(self, answer: KeptAnswer) -> AsyncGenerator[bytes, None]:
        """A kept answer, a piece at a time. Raises `MissingPieceError`."""
        return self._chunks.read(answer.key, answer.size)


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
