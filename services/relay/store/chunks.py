"""Large bodies in pieces: written and read one piece at a time, so that memory never holds a whole body."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TypeVar

from services.relay.message import Stored
from services.relay.store.database import Database, queries
from services.relay.store.faults import is_trouble
from services.relay.store.time_limit import Silence, paused_limit

# 384 KiB: a multiple of 3, so that the base64 of the pieces joins to the base64 of the whole. With half the size, a
# large body would take a fifth longer. With twice the size, half as many could be transferred at once in the same
# memory.
PIECE_BYTES = 3 * 128 * 1024
# Bodies that one statement removes. With 50 MB each, that is 2600 pieces.
RELEASE_MAX = 20
# The tries to store a piece of a request's body, as its client waits. Each try takes up to 10 s while the database is
# away.
WRITE_TRIES = 4
# The pause between tries. It starts at the first value and doubles up to the second.
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 1.0, 10.0

T = TypeVar("T")


class MissingPieceError(Exception):
    """A stored body was removed, or is incomplete."""


@dataclass(frozen=True)
class KeptAnswer:
    """An answer that can be fetched: the key of its pieces, its size in bytes, and its header in
    the protocol's form.
    """

    key: str
    size: int
    header: dict[str, list[str]]

    @property
    def content_type(self) -> str:
        """The content type, as the destination sent it."""
        found = [values[-1] for name, values in self.header.items() if name.lower() == "content-type"]
        return found[0] if found else "application/octet-stream"


class Chunks:
    """The table of pieces. A key identifies one body, whose pieces are numbered from 0. Each piece but the last has
    PIECE_BYTES, or fewer after `Writer.flush`, and always a multiple of 3.
    """

    def __init__(self, database: Database, *, pause_seconds: float = PAUSE_SECONDS) -> None:
        """`pause_seconds` is the pause before the second try."""
        self._database = database
        self._pause_seconds = pause_seconds
        self._q = queries("chunks")
        # The time in which statements for pieces had no answer.
        self.silence = Silence()

    def writer(self, limit: asyncio.Timeout | None = None) -> Writer:
        """A writer for a new body, under a new key. `limit`, the time limit of a call, means that the body is an
        answer, which cannot be fetched again: the writer waits as long as the database is away, and the limit is paused
        meanwhile.
        """
        return Writer(self, limit)

    async def write(self, key: str, part: int, content: bytes, *, tries_max: int | None = WRITE_TRIES) -> None:
        """Store one piece. `tries_max` bounds the tries while the database is away; None: retry until it is back."""
        piece = {"key": key, "part": part, "content": content}
        await self._repeated(partial(self._database.execute, self._q["write"], piece), tries_max)

    async def read(self, key: str, size: int, *, tries_max: int | None = None) -> AsyncGenerator[bytes, None]:
        """Read the first `size` bytes, a piece at a time. `tries_max` is as for `write`. Raises `MissingPieceError`."""
        part = 0
        while size > 0:
            asked = {"key": key, "part": part}
            found = await self._repeated(partial(self._database.fetch, self._q["read"], asked), tries_max)
            if not found:
                raise MissingPieceError("the stored body is not there any more")
            content: bytes = found[0]["content"]
            if len(content) > size:
                content = content[:size]
            size -= len(content)
            part += 1
            yield content

    async def release(self, keys: Sequence[str]) -> None:
        """Remove those of these bodies that no message, dead letter or kept answer refers to."""
        ordered = sorted(set(keys))
        for start in range(0, len(ordered), RELEASE_MAX):
            await self._database.execute(self._q["release"], {"keys": ordered[start : start + RELEASE_MAX]})

    async def answer(self, message_id: str, attempt: int) -> KeptAnswer | None:
        """The answer that was too large for the callback of this attempt (its number, from 0)."""
        found = await self._database.fetch(self._q["answer"], {"message_id": message_id, "attempt": attempt})
        return KeptAnswer(**found[0]) if found else None

    async def _repeated(self, statement: Callable[[], Awaitable[T]], tries_max: int | None) -> T:
        pause_seconds = self._pause_seconds
        with self.silence.statement():
            for tries in count(1):
                try:
                    return await statement()
                except Exception as error:
                    if tries == tries_max or not is_trouble(error):
                        raise
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, PAUSE_SECONDS_MAX)
        raise AssertionError("unreachable")


class Writer:
    """Takes a body as it arrives and stores it. It holds at most one piece in memory."""

    def __init__(self, chunks: Chunks, limit: asyncio.Timeout | None = None) -> None:
        """`limit`: see `Chunks.writer`."""
        self._chunks = chunks
        self._limit = limit
        self._key = f"body_{secrets.token_hex(16)}"
        self._buffer = bytearray()
        self._part = 0
        self._size = 0
        self._hash = hashlib.sha256()

    @property
    def key(self) -> str:
        return self._key

    @property
    def size(self) -> int:
        """The bytes taken so far."""
        return self._size

    async def write(self, content: bytes | bytearray) -> None:
        """Take more of the body."""
        self._hash.update(content)
        self._size += len(content)
        view = memoryview(content)
        while view:
            room = PIECE_BYTES - len(self._buffer)
            self._buffer += view[:room]
            view = view[room:]
            if len(self._buffer) == PIECE_BYTES:
                await self._flush(PIECE_BYTES)

    async def flush(self) -> None:
        """Store the bytes held so far before more of the body arrives. Up to 2 bytes remain, as base64 groups bytes by
        three.
        """
        if size := len(self._buffer) // 3 * 3:
            await self._flush(size)

    async def close(self) -> Stored:
        """Store the rest. When this returns, the whole body is stored."""
        if self._buffer:
            await self._flush(len(self._buffer))
        return Stored(self._key, self._size, self._hash.digest())

    async def _flush(self, size: int) -> None:
        tries_max = WRITE_TRIES if self._limit is None else None
        with paused_limit(self._limit):
            await self._chunks.write(self._key, self._part, bytes(self._buffer[:size]), tries_max=tries_max)
        self._part += 1
        self._buffer = self._buffer[size:]
