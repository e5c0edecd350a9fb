"""Request bodies. The event loop reads each one within limits of size, time and memory."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from services.api.problem import ProblemError

Receive = Callable[[], Awaitable[Mapping[str, Any]]]

# The time limit for reading a body: 30 s, plus 1 s for each 64 KiB, the rate of a slow mobile uplink.
READ_SECONDS = 30.0
READ_BYTES_PER_SECOND = 64 * 1024
# The memory for bodies that are being read or processed: of all owners, and of one owner. The latter is a quarter, so
# that one tenant cannot use all of it.
MEMORY_BYTES = 256 * 1024 * 1024
MEMORY_BYTES_OWNER = 64 * 1024 * 1024
MEMORY_WAIT_SECONDS = 10.0


class ClientGoneError(Exception):
    """The client disconnected before its body was complete; no response is possible."""


class BodyMemory:
    """The memory for bodies.
    The full size of a body is reserved before its first byte is read, which prevents deadlocks.
    """

    def __init__(self, total: int = MEMORY_BYTES, per_owner: int = MEMORY_BYTES_OWNER) -> None:
        self._total = total
        self._per_owner = per_owner
        self._reserved = 0
        self._reserved_by: Counter[str] = Counter()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def reserve(self, owner: str, size: int) -> None:
        """Reserve `size` bytes until they are released.
        Raises `ProblemError` 503 if they do not become free in time.
        """
        if not self._fits(owner, size):
            await self._wait(owner, size)
        self._reserved += size
        self._reserved_by[owner] += size

    def reserved(self, owner: str) -> int:
        return self._reserved_by[owner]

    def _fits(self, owner: str, size: int) -> bool:
        """A body larger than an owner's share is admitted alone."""
        of_owner = self._reserved_by[owner]
        return (of_owner == 0 or of_owner + size <= self._per_owner) and (
            self._reserved == 0 or self._reserved + size <= self._total
        )

    async def _wait(self, owner: str, size: int) -> None:
        try:
            async with asyncio.timeout(MEMORY_WAIT_SECONDS):
                while not self._fits(owner, size):
                    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting.append(future)
                    await future
        except TimeoutError:
            raise ProblemError(503, "too many request bodies at once; try again", Retry_After="1") from None

    def release(self, owner: str, size: int) -> None:
        self._reserved -= size
        self._reserved_by[owner] -= size
        # The entry is deleted, because owners come and go.
        if not self._reserved_by[owner]:
            del self._reserved_by[owner]
        # Every waiting request is checked, in order of arrival: a smaller one may fit where the first does not.
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)


async def read_body(receive: Receive, length: int | None, bytes_max: int) -> bytes:
    """Read the body, which is `length` bytes long if the client declared its length.
    Raises `ProblemError` 413 and 408, and `ClientGoneError`.
    """
    if length == 0:
        return b""
    if length is not None and length > bytes_max:
        raise _too_large(bytes_max)
    seconds = READ_SECONDS + (length if length is not None else bytes_max) / READ_BYTES_PER_SECOND
    try:
        async with asyncio.timeout(seconds):
            return await _pieces(receive, length, bytes_max)
    except TimeoutError:
        raise ProblemError(408, f"the body was not received within {seconds:.0f} s", Connection="close") from None


async def _pieces(receive: Receive, length: int | None, bytes_max: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        piece = message["body"]
        pieces.append(piece)
        size += len(piece)
        if size > bytes_max:
            raise _too_large(bytes_max)
        if size == length or not message["more_body"]:
            return piece if len(pieces) == 1 else b"".join(pieces)


def _too_large(bytes_max: int) -> ProblemError:
    return ProblemError(413, f"the body is larger than {bytes_max} bytes")
