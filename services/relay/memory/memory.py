"""The memory budget: how many bytes of bodies this process may hold, in shares, so that no use of memory starves another.

Counted are bodies from the moment they are read until they are written or sent on; large ones that are under way, piece
by piece, by the places they take. Not counted, and covered by PROCESS_BYTES: the interpreter, and statements being
written.
"""

from __future__ import annotations

from collections.abc import Hashable

from services.relay.memory.byte_share import Share
from services.relay.memory.transfers import Transfers

MIB = 1024 * 1024
BYTES_MAX = 512 * MIB
# The interpreter with our modules is 85 MiB, the statements that are written at the same time are some 25, the rest is for
# what the allocator does not give back.
PROCESS_BYTES = 128 * MIB
# A large body under way: a piece as it was read or is to be written, its copy in the driver, and the connection's buffers.
TRANSFER_BYTES = MIB
# A call under way without its body: task, connection, headers (benchmarks, `held`: 11 to 13 KiB).
CALL_BYTES = 12 * 1024
# What a call takes more while up to 64 KiB of its answer are here: as it came, for a second look, and as its body.
BEGINNING_BYTES = 128 * 1024
# What a request may take of the share for small ones.
SMALL_BYTES_MAX = 64 * 1024
# A batch that is being read lies in memory twice, as it came and as its items.
JSON_COPIES = 2
# So much a page of dead letters or events shows. It is in memory as rows, as views, as text and as the answer.
PAGE_BYTES_MAX = 2 * MIB
PAGE_COPIES = 5
# What one that waits has in memory already, of an answer that has begun.
WAITING_BYTES = 64 * 1024
# Deliveries of large bodies that wait for a place.
CALLS_MAX = 5000


class Memory:
    """The shares of RELAY_MEMORY_BYTES_MAX.

    `calls`: calls under way, the bodies of their messages, answers' beginnings, and connections over TLS: those of one claim
    are counted when they are there, so that this share may be exceeded by 300 of them. `answers`: from their arrival until
    what follows from them is written. `requests`: bodies of up to SMALL_BYTES_MAX until they are committed. `batches`:
    larger JSON, and large pages.
    `transfers`: the places of large bodies that are under way, of all kinds together TRANSFER_BYTES each.
    """

    def __init__(self, bytes_max: int = BYTES_MAX, *, calls_max: int = CALLS_MAX) -> None:
        spare = max(bytes_max - PROCESS_BYTES, bytes_max // 4)
        part = spare // 16
        self.calls = Share(8 * part)
        # What waits has its beginning in memory: together as much as the share. The others are stored without waiting.
        self.answers = Share(2 * part, waiting_max=2 * part // WAITING_BYTES, fair=True)
        self.batches = Share(part, first_grows=True)
        self.requests = Share(part)
        self.transfers = Transfers(4 * part // TRANSFER_BYTES, calls_max)

    def begin(self, call: Hashable) -> bool:
        """Whether there is room for up to 64 KiB of an answer with its call, until that ends."""
        return self.calls.grow(call, BEGINNING_BYTES)

    def holding(self, name: str) -> Holding:
        """For a request of the token `name`."""
        return Holding(self, name)


class Holding:
    """What one request holds."""

    def __init__(self, memory: Memory, name: str) -> None:
        self._memory = memory
        self._name = name
        self._taken: list[tuple[Share, Hashable]] = [(memory.requests, self), (memory.batches, self)]

    async def take(self, size: int) -> None:
        """Have room for `size` bytes more until the request has its answer. Raises `NoRoomError`."""
        if size:
            share = self._memory.requests if size <= SMALL_BYTES_MAX else self._memory.batches
            key = (self, len(self._taken))
            await share.take(key, size, self._name)
            self._taken.append((share, key))

    async def grow(self, size: int) -> None:
        """Have room for a body that has `size` by now. Raises `NoRoomError`."""
        share = self._memory.requests if size <= SMALL_BYTES_MAX else self._memory.batches
        await share.take(self, size, self._name)
        if share is self._memory.batches:
            self._memory.requests.give(self)

    async def take_page(self, bytes_max: int = PAGE_BYTES_MAX) -> None:
        """The same for an answer that shows so much."""
        await self.take(PAGE_COPIES * bytes_max)

    def close(self) -> None:
        for share, key in self._taken:
            share.give(key)
