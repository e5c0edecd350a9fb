"""Large bodies in pieces: written and read one at a time, so that memory never holds a whole one."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import psycopg

from services.relay.message import Stored
from services.relay.store.database import Database, queries

# 384 KiB: a multiple of 3, so that the base64 of pieces joins to the base64 of the whole. Of half the size, a large body
# would take a fifth longer; of twice the size, half as many could move at once in the same memory.
PIECE_BYTES = 3 * 128 * 1024
# Bodies that are removed by one statement: of 50 MB each that is 2600 pieces.
RELEASE_MAX = 20
WRITE_TRIES = 5
WRITE_PAUSE_SECONDS = 1.0


class MissingPieceError(Exception):
    """A body is not there any more, or not whole."""


@dataclass(frozen=True)
class KeptAnswer:
    """An answer that can be fetched: the key of its pieces, its bytes, and its header as the protocol writes it."""

    key: str
    size: int
    header: dict[str, list[str]]

    @property
    def content_type(self) -> str:
        """As the destination named it."""
        found = [values[-1] for name, values in self.header.items() if name.lower() == "content-type"]
        return found[0] if found else "application/octet-stream"


class Chunks:
    """The table of pieces. A key is of one body, whose pieces are numbered from 0. But for the last they are PIECE_BYTES, or less after
    `Writer.flush`, and always a multiple of 3.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._q = queries("chunks")

    def writer(self) -> Writer:
        """For a new body, under a key of its own."""
        return Writer(self)

    async def write(self, key: str, part: int, content: bytes) -> None:
        """Store one piece; a database that is away for a moment is waited for, as the rest of the body cannot be had again."""
        for left in range(WRITE_TRIES - 1, -1, -1):
            try:
                await self._database.execute(self._q["write"], {"key": key, "part": part, "content": content})
            except psycopg.OperationalError:
                if not left:
                    raise
                await asyncio.sleep(WRITE_PAUSE_SECONDS)
            else:
                return

    async def read(self, key: str, size: int) -> AsyncGenerator[bytes, None]:
        """The first `size` bytes, a piece at a time. Raises `MissingPieceError`."""
        part = 0
        while size > 0:
            found = await self._database.fetch(self._q["read"], {"key": key, "part": part})
            if not found:
                raise MissingPieceError("the stored body is not there any more")
            content: bytes = found[0]["content"]
            if len(content) > size:
                content = content[:size]
            size -= len(content)
            part += 1
            yield content

    async def release(self, keys: Sequence[str]) -> None:
        """Remove those of these bodies that no message, dead letter or kept answer names any more."""
        ordered = sorted(set(keys))
        for start in range(0, len(ordered), RELEASE_MAX):
            await self._database.execute(self._q["release"], {"keys": ordered[start : start + RELEASE_MAX]})

    async def answer(self, message_id: str, attempt: int) -> KeptAnswer | None:
        """The answer that was too large for the callback of this attempt (its number, from 0)."""
        found = await self._database.fetch(self._q["answer"], {"message_id": message_id, "attempt": attempt})
        return KeptAnswer(**found[0]) if found else None


class Writer:
    """Takes a body as it comes and stores it; holds one piece at the most."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
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
        """Bytes taken so far."""
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
        """Store what is here before more of the body comes, but for up to 2 bytes: base64 is joined by threes."""
        if size := len(self._buffer) // 3 * 3:
            await self._flush(size)

    async def close(self) -> Stored:
        """Store what is left; the whole body is there when this returns."""
        if self._buffer:
            await self._flush(len(self._buffer))
        return Stored(self._key, self._size, self._hash.digest())

    async def _flush(self, size: int) -> None:
        await self._chunks.write(self._key, self._part, bytes(self._buffer[:size]))
        self._part += 1
        self._buffer = self._buffer[size:]
