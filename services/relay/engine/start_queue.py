"""The queue of start notices: which starts wait, which are sent together, which are dropped. No I/O.

Nothing is stored: a sender that gets no notice learns of the attempt's end by its callback in any case.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

# Starts of all addresses together, including those of requests in flight. One takes up to two kilobytes, usually half a
# kilobyte.
STARTS_MAX = 10_000
# Concurrent addresses. Each has one request in flight, so this bounds the connections too.
URLS_MAX = 64
# An address without a successful notice for this long gives way to any other address. An address that waits for a
# shorter time gives way only to one whose last success is more recent. Receivers answer in milliseconds.
NO_SUCCESS_SECONDS = 1.0
# Starts of one request: some 120 KiB, or 1.6 MB with the longest labels and data.
BATCH_MAX = 500
# A start notice later than this tells little more than the end of the attempt will.
AGE_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Start:
    """One attempt that started. `retried` is its number from 0, as in callbacks; `put_at` is in monotonic seconds.

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
class StartBatch:
    """The starts of one request, and how many were left out because they are too old or their attempt has ended."""

    batch: tuple[Start, ...]
    late: int
    over: int


@dataclass(frozen=True, slots=True)
class Put:
    """The result of adding a start: how many starts were dropped because the queue was full, and the address that gave
    way, whose request must be ended. `refused`: the new start was not added.
    """

    dropped: int = 0
    evicted: str | None = None
    refused: bool = False


@dataclass(slots=True)
class _Queue:
    created_at: float
    starts: deque[Start]


class StartQueue:
    """One queue per address, so that an address that does not answer delays no other. When the limit is reached, the
    longest queue loses its oldest start, and the address with the oldest success loses its place. Addresses that do not
    answer thus give way to those that do.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, _Queue] = {}
        # The time of each address's last success, the latest at the end. It is kept while no start waits.
        self._succeeded_at: dict[str, float] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, url: str, start: Start) -> Put:
        evicted, dropped = None, 0
        queue = self._waiting.get(url)
        if queue is None:
            if len(self._waiting) >= URLS_MAX:
                evicted = self._to_evict(url, start.put_at)
                if evicted is None:
                    return Put(dropped=1, refused=True)
                dropped = self._evict(evicted)
            queue = self._waiting[url] = _Queue(start.put_at, deque())
        queue.starts.append(start)
        self._size += 1
        if self._size > STARTS_MAX:
            max(self._waiting.values(), key=lambda queue: len(queue.starts)).starts.popleft()
            self._size -= 1
            dropped += 1
        return Put(dropped, evicted)

    def _to_evict(self, to: str, now: float) -> str | None:
        """The address with the oldest success, if it must give way to `to`."""
        url = min(self._waiting, key=lambda url: (self._last_success(url), self._waiting[url].created_at))
        no_success_since = max(self._last_success(url), self._waiting[url].created_at)
        return (
            url
            if now - no_success_since >= NO_SUCCESS_SECONDS or self._last_success(to) > self._last_success(url)
            else None
        )

    def _evict(self, url: str) -> int:
        """Drop an address. Returns how many of its starts waited."""
        dropped = len(self._waiting.pop(url).starts)
        self._size -= dropped
        return dropped

    def _last_success(self, url: str) -> float:
        return self._succeeded_at.get(url, -math.inf)

    def take(self, url: str, now: float) -> StartBatch:
        """The oldest starts of an address that are still worth sending, to be passed to `settle` or `give_back`. If
        there is none, the address is forgotten.
        """
        waiting = self._waiting.get(url)
        queue: deque[Start] = deque() if waiting is None else waiting.starts
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
        return StartBatch(tuple(batch), late, over)

    def succeeded(self, url: str, sent: StartBatch, now: float) -> None:
        """The receiver has accepted the starts."""
        self.settle(sent)
        self._succeeded_at.pop(url, None)
        self._succeeded_at[url] = now
        while len(self._succeeded_at) > URLS_MAX:
            del self._succeeded_at[next(iter(self._succeeded_at))]

    def settle(self, sent: StartBatch) -> None:
        """Drop the starts."""
        self._size -= len(sent.batch)

    def give_back(self, url: str, sent: StartBatch) -> None:
        """Put the starts back, before the others of their address."""
        self._waiting[url].starts.extendleft(reversed(sent.batch))
