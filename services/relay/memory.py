"""The memory budget: how many bytes of bodies this process may hold, in shares, so that no use of memory starves another.

Counted are bodies from the moment they are read until they are written or sent on; large ones that are under way, piece by
piece, by the places they take. Not counted, and covered by PROCESS_BYTES: the interpreter, statements being written, and
up to 256 KB that come at once of an answer which then waits for room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

from services.relay.transfers import Transfers

MIB = 1024 * 1024
BYTES_MAX = 512 * MIB
# The interpreter with our modules is 85 MiB, the statements that are written at the same time are some 25, the rest is for
# what the allocator does not give back.
PROCESS_BYTES = 128 * MIB
# A large body under way: a piece as it was read or is to be written, its copy in the driver, and the connection's buffers.
TRANSFER_BYTES = MIB
# A call under way without its body: task, connection, headers (benchmarks, `held`: 11 to 13 KiB).
CALL_BYTES = 12 * 1024
# What a request may take of the share for small ones.
SMALL_BYTES_MAX = 64 * 1024
# A batch that is being read lies in memory twice, as it came and as its items.
JSON_COPIES = 2
# So much a page of dead letters or events shows. It is in memory as rows, as views, as text and as the answer.
PAGE_BYTES_MAX = 2 * MIB
PAGE_COPIES = 5
# So long a request waits for others to end. Its client has a timeout of its own, mostly 30 s or more.
WAIT_SECONDS = 10.0
# Who comes when so many wait would hardly be served in time.
WAITING_MAX = 1000
# What one that waits has in memory already, of an answer that has begun.
WAITING_BYTES = 64 * 1024
# Deliveries of large bodies that wait for a place.
CALLS_MAX = 5000


class NoRoomError(Exception):
    """There was no room within the wait: 503, come again."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    key: Hashable
    size: int
    name: str
    granted: asyncio.Future[None]


class Share:
    """`bytes_max` bytes for one use. What holds a part of it has a key, and may have a name: a token, a destination.

    One name gets half at the most. Who waits is served in order, past those whose name has its half. One that is larger than
    there is room is admitted when it is alone, as it would never be otherwise.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._used = 0
        # Of that, what has a name.
        self._taken = 0
        self._held: dict[Hashable, tuple[int, str]] = {}
        self._of_name: dict[str, int] = {}
        self._waiting: deque[_Waiting] = deque()

    @property
    def left(self) -> int:
        """Below 0 when more is held than there is room for."""
        return self._bytes_max - self._used

    @property
    def crowded(self) -> bool:
        """What nobody had to wait for has half of the room, or what has begun and waits for room comes to all of it.

        What was taken does not count, as a few names can have all of that for as long as they like.
        """
        held = self._used - self._taken
        return 2 * held >= self._bytes_max or len(self._waiting) * WAITING_BYTES >= self._bytes_max

    def hold(self, key: Hashable, size: int, name: str = "") -> None:
        """Count what is in memory already, or must be; once more of the same key, its new size counts."""
        self._count(key, size, name)
        if self._waiting:
            self._serve()

    def _count(self, key: Hashable, size: int, name: str) -> None:
        self._forget(key)
        self._held[key] = (size, name)
        self._used += size
        if name:
            self._taken += size
            self._of_name[name] = self._of_name.get(name, 0) + size

    def give(self, key: Hashable) -> None:
        """It is not held any more; nothing, when it was not."""
        if self._forget(key) and self._waiting:
            self._serve()

    async def take(self, key: Hashable, size: int, name: str, seconds: float = WAIT_SECONDS) -> None:
        """Hold `size` when there is room, waiting up to `seconds` for it. Of a key that holds something, `size` is what it
        holds then, and what it holds stays while it waits. Raises `NoRoomError`.
        """
        if not self._waiting and self._fits(key, size, name):
            self._count(key, size, name)
            return
        if len(self._waiting) >= WAITING_MAX:
            raise NoRoomError
        waiting = _Waiting(key, size, name, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        # Past those who wait for their name's half.
        self._serve()
        try:
            async with asyncio.timeout(seconds):
                await waiting.granted
        except BaseException as error:
            self._withdraw(waiting)
            if isinstance(error, TimeoutError):
                raise NoRoomError from None
            raise

    def _withdraw(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            self._serve()
        else:
            self.give(waiting.key)

    def _serve(self) -> None:
        """Let in who fits now: of each name in order, and nobody past one for whom there is no room at all."""
        passed: deque[_Waiting] = deque()
        while self._waiting:
            waiting = self._waiting[0]
            if waiting.granted.done():  # given up in this very moment
                self._waiting.popleft()
            elif self._has_its_half(waiting.key, waiting.size, waiting.name):
                passed.append(self._waiting.popleft())
            elif self._fits(waiting.key, waiting.size, waiting.name):
                self._waiting.popleft()
                self._count(waiting.key, waiting.size, waiting.name)
                waiting.granted.set_result(None)
            else:
                break
        self._waiting.extendleft(reversed(passed))

    def _fits(self, key: Hashable, size: int, name: str) -> bool:
        own = self._own(key)
        return (self._used == own or size - own <= self.left) and not self._has_its_half(key, size, name)

    def _has_its_half(self, key: Hashable, size: int, name: str) -> bool:
        others = self._of_name.get(name, 0) - self._own(key)
        return others > 0 and others + size > self._bytes_max // 2

    def _own(self, key: Hashable) -> int:
        return self._held.get(key, (0, ""))[0]

    def _forget(self, key: Hashable) -> bool:
        found = self._held.pop(key, None)
        if found is None:
            return False
        size, name = found
        self._used -= size
        if name:
            self._taken -= size
            left = self._of_name[name] - size
            if left:
                self._of_name[name] = left
            else:
                del self._of_name[name]
        return True


class Memory:
    """The shares of RELAY_MEMORY_BYTES_MAX.

    `calls`: calls under way with the bodies of their messages. `answers`: from their arrival until what follows from them is
    written. `requests`: bodies of up to SMALL_BYTES_MAX until they are committed. `batches`: larger JSON, and large pages.
    `transfers`: the places of large bodies that are under way, of all kinds together TRANSFER_BYTES each.
    """

    def __init__(self, bytes_max: int = BYTES_MAX, *, calls_max: int = CALLS_MAX) -> None:
        spare = max(bytes_max - PROCESS_BYTES, bytes_max // 4)
        part = spare // 16
        self.calls = Share(8 * part)
        self.answers = Share(2 * part)
        self.batches = Share(part)
        self.requests = Share(part)
        self.transfers = Transfers(4 * part // TRANSFER_BYTES, calls_max)

    def holding(self, name: str) -> Holding:
        """For a request of the token `name`."""
        return Holding(self, name)


class Holding:
    """What one request holds."""

    def __init__(self, memory: Memory, name: str) -> None:
        self._memory = memory
        self._name = name
        self._taken: list[tuple[Share, Hashable]] = []

    async def take(self, size: int) -> None:
        """Have room for `size` bytes more until the request has its answer. Raises `NoRoomError`."""
        if size:
            share = self._memory.requests if size <= SMALL_BYTES_MAX else self._memory.batches
            key = (self, len(self._taken))
            await share.take(key, size, self._name)
            self._taken.append((share, key))

    async def take_page(self, bytes_max: int = PAGE_BYTES_MAX) -> None:
        """The same for an answer that shows so much."""
        await self.take(PAGE_COPIES * bytes_max)

    def close(self) -> None:
        for share, key in self._taken:
            share.give(key)
