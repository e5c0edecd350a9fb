"""Starts of attempts that are to be told: which wait, which go together, which are given up. No I/O.

Nothing here is stored: who is told of a start learns of the attempt's end by its callback in any case.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

# Of all addresses together, those of requests under way included. One takes up to two kilobytes, mostly half of one.
STARTS_MAX = 10_000
# Addresses at a time: each has a request of its own under way, so this bounds connections too.
URLS_MAX = 64
# One request: some 120 KiB, with the longest labels and data 1.6 MB.
BATCH_MAX = 500
# A start that is told later than this says little more than the end of the attempt will.
AGE_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Start:
    """One attempt that began; `retried` is its number from 0, as callbacks have it, `put_at` monotonic seconds.

    `over`: whether the attempt has ended meanwhile.
    """

    message_id: str
    label: str | None
    retried: int
    started_at_ms: int
    data: str
    put_at: float
    over: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Taken:
    """What goes into one request, and how many were left out because they are too old, or over."""

    batch: tuple[Start, ...]
    late: int
    over: int


class StartQueue:
    """By address, so that one that does not answer keeps no other waiting. When all is full, the longest queue loses its
    oldest start, so an address that does not answer makes room for those that do.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Start]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, url: str, start: Start) -> int:
        """How many starts were dropped for want of room: none or one."""
        queue = self._waiting.get(url)
        if queue is None:
            if len(self._waiting) >= URLS_MAX:
                return 1
            queue = self._waiting[url] = deque()
        queue.append(start)
        self._size += 1
        if self._size <= STARTS_MAX:
            return 0
        max(self._waiting.values(), key=len).popleft()
        self._size -= 1
        return 1

    def take(self, url: str, now: float) -> Taken:
        """The oldest of an address that are worth telling, to be given to `settle` or `give_back`. When there is none, the
        address is forgotten.
        """
        queue = self._waiting.get(url, deque())
        batch: list[Start] = []
        late = over = 0
        while queue and len(batch) < BATCH_MAX:
            start = queue.popleft()
            if start.over():
                over += 1
            elif now - start.put_at > AGE_SECONDS_MAX:
                late += 1
            else:
                batch.append(start)
        self._size -= late + over
        if not batch:
            self._waiting.pop(url, None)
        return Taken(tuple(batch), late, over)

    def settle(self, taken: Taken) -> None:
        """They were told, or are given up."""
        self._size -= len(taken.batch)

    def give_back(self, url: str, taken: Taken) -> None:
        """They are to be told once more, before the others of their address."""
        self._waiting[url].extendleft(reversed(taken.batch))
