"""The memory budget: how many bytes of bodies this process may hold, in shares, so that no use of memory starves
another.

Bodies count from the moment they are read until they are written or sent on. Large bodies in transfer, which move piece
by piece, count by the places they take. Not counted, and covered by PROCESS_BYTES: the interpreter, and statements
being written.
"""

from __future__ import annotations

from collections.abc import Hashable

from services.relay.memory.byte_budget import ByteBudget
from services.relay.memory.transfers import Transfers

MIB = 1024 * 1024
BYTES_MAX = 512 * MIB
# The interpreter with our modules takes 85 MiB, and concurrent statements some 25. The rest is for memory that the
# allocator does not return.
PROCESS_BYTES = 128 * MIB
# A large body in transfer: a piece as read or to be written, its copy in the driver, and the connection's buffers.
TRANSFER_BYTES = MIB
# A call in flight without its body: task, connection, headers (benchmarks, `held`: 11 to 13 KiB).
CALL_BYTES = 12 * 1024
# The additional memory of a call while up to 64 KiB of its answer are held: as received, for a second parse, and as its
# body.
BEGINNING_BYTES = 128 * 1024
# The most that a request may take of the share for small requests.
SMALL_BYTES_MAX = 64 * 1024
# A batch being read is in memory twice: as received, and as its items.
JSON_COPIES = 2
# The size of a page of dead letters or events. It is in memory as rows, as views, as text and as the answer.
PAGE_BYTES_MAX = 2 * MIB
PAGE_COPIES = 5
# The memory that a waiting answer takes already, as it has begun.
WAITING_BYTES = 64 * 1024
# The limit on deliveries of large bodies that wait for a place.
CALLS_MAX = 5000


class Memory:
    """The shares of RELAY_MEMORY_BYTES_MAX.

    `calls`: calls in flight, the bodies of their messages, the beginnings of answers, and TLS connections. The calls of
    one claim are counted after they were read, so this share may be exceeded by 300 of them. `answers`: from their
    arrival until their endings are written. `requests`: bodies of up to SMALL_BYTES_MAX until they are committed.
    `batches`: larger JSON, and large pages. `transfers`: the places of large bodies in transfer, of all kinds together,
    TRANSFER_BYTES each.
    """

    def __init__(self, bytes_max: int = BYTES_MAX, *, calls_max: int = CALLS_MAX) -> None:
        spare = max(bytes_max - PROCESS_BYTES, bytes_max // 4)
        part = spare // 16
        self.calls = ByteBudget(8 * part)
        # A waiting answer has its beginning in memory: together at most the size of the share. Others are stored
        # without a wait.
        self.answers = ByteBudget(2 * part, waiting_max=2 * part // WAITING_BYTES, fair=True)
        self.batches = ByteBudget(part, first_grows=True)
        self.requests = ByteBudget(part)
        self.transfers = Transfers(4 * part // TRANSFER_BYTES, calls_max)

    def begin(self, call: Hashable) -> bool:
        """Whether up to 64 KiB of an answer fit beside its call, until that ends."""
        return self.calls.grow(call, BEGINNING_BYTES)

    def holding(self, name: str) -> Holding:
        """The holding of a request of the token `name`."""
        return Holding(self, name)


class Holding:
    """The memory that one request holds."""

    def __init__(self, memory: Memory, name: str) -> None:
        self._memory = memory
        self._name = name
        self._taken: list[tuple[ByteBudget, Hashable]] = [(memory.requests, self), (memory.batches, self)]

    async def take(self, size: int) -> None:
        """Reserve `size` more bytes until the request has its answer. Raises `NoRoomError`."""
        if size:
            share = self._memory.requests if size <= SMALL_BYTES_MAX else self._memory.batches
            key = (self, len(self._taken))
            await share.take(key, size, self._name)
            self._taken.append((share, key))

    async def grow(self, size: int) -> None:
        """Reserve memory for a body that has `size` bytes so far. Raises `NoRoomError`."""
        share = self._memory.requests if size <= SMALL_BYTES_MAX else self._memory.batches
        await share.take(self, size, self._name)
        if share is self._memory.batches:
            self._memory.requests.give(self)

    async def take_page(self, bytes_max: int = PAGE_BYTES_MAX) -> None:
        """Reserve memory for an answer that shows `bytes_max` bytes. Raises `NoRoomError`."""
        await self.take(PAGE_COPIES * bytes_max)

    def close(self) -> None:
        for share, key in self._taken:
            share.give(key)
