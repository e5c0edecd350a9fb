"""The age of the changes that wait for a consumer: the readiness of a process that reads Kafka."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from threading import Lock

# A transaction may take 8 s, and is tried three times; a broker returns after some 15 s. A longer wait needs an
# operator.
AGE_SECONDS_MAX = 30.0
# A fault names this many partitions at most.
NAMED_MAX = 3


class UnmovedPartitions:
    """The time since which partitions with unread records have not moved. For one thread."""

    def __init__(self) -> None:
        self._partitions: dict[Hashable, tuple[int, int, float]] = {}

    def note(self, partitions: Mapping[Hashable, tuple[int, int]], now: float) -> None:
        """Record the position of each partition and the end of its log."""
        before = self._partitions
        self._partitions = {}
        for partition, (position, end) in partitions.items():
            old = before.get(partition)
            moved = old is None or old[0] != position or old[0] >= old[1]
            self._partitions[partition] = (position, end, now if moved or old is None else old[2])

    def clear(self) -> None:
        self._partitions.clear()

    def oldest_seconds(self, now: float) -> float:
        return max((now - at for position, end, at in self._partitions.values() if position < end), default=0.0)

    def fault(self, now: float, age_seconds_max: float = AGE_SECONDS_MAX) -> str | None:
        """Return in words which partitions do not move."""
        stuck = [
            str(partition)
            for partition, (position, end, at) in self._partitions.items()
            if position < end and now - at > age_seconds_max
        ]
        if not stuck:
            return None
        names = ", ".join(sorted(stuck)[:NAMED_MAX])
        return (
            f"{len(stuck)} partitions have had unread records for {self.oldest_seconds(now):.0f} s"
            f" and do not move: {names}"
        )


class Progress:
    """The process's loop writes it, the health server's threads read it. `fault` is None without a fault."""

    def __init__(self, clock: Callable[[], float], *, age_seconds_max: float = AGE_SECONDS_MAX) -> None:
        self._clock = clock
        self._age_max = age_seconds_max
        self._lock = Lock()
        self._disconnected: str | None = "not connected yet"
        self._round_at = clock()
        self._batch: tuple[float, str] | None = None
        self._positions = UnmovedPartitions()
        self.missed_total = 0

    def disconnected(self, reason: str) -> None:
        """The connection to Kafka must be renewed; records that were read and not committed are read again."""
        with self._lock:
            self._disconnected, self._batch = reason, None
            self._positions.clear()

    def round_completed(self, assigned: int) -> None:
        """The loop completed a round, with `assigned` partitions to read."""
        with self._lock:
            self._disconnected = None if assigned else "no partitions assigned yet"
            self._round_at = self._clock()

    def batch_waits(self, reason: str) -> None:
        """A batch is in progress; `reason` says what it waits for. Its age counts from the first such call."""
        with self._lock:
            self._batch = (self._clock() if self._batch is None else self._batch[0], reason)

    def batch_committed(self) -> None:
        """The batch in progress is committed."""
        with self._lock:
            self._batch = None

    def positions(self, partitions: Mapping[Hashable, tuple[int, int]]) -> None:
        """Record the position of each partition and the end of its log."""
        with self._lock:
            self._positions.note(partitions, self._clock())

    def records_missed(self, records: int) -> None:
        """`records` records expired before they were read. This remains a fault: see `tidings.kafka.changes`."""
        with self._lock:
            self.missed_total += records

    @property
    def oldest_seconds(self) -> float:
        """The age of the oldest waiting change: of a batch in progress, or of unread records in a stuck partition."""
        with self._lock:
            now = self._clock()
            held = 0.0 if self._batch is None else now - self._batch[0]
            return max(held, self._positions.oldest_seconds(now))

    def fault(self) -> str | None:
        """Return the fault in words, or None."""
        now = self._clock()
        with self._lock:
            stuck = self._positions.fault(now, self._age_max)
            faults = [self._disconnected, self._idle(now), self._old_batch(now), stuck, self._missing()]
        present = [fault for fault in faults if fault is not None]
        return "; ".join(present) or None

    def _idle(self, now: float) -> str | None:
        age = now - self._round_at
        return f"the loop has not completed a round for {age:.0f} s" if age > self._age_max else None

    def _old_batch(self, now: float) -> str | None:
        if self._batch is None or now - self._batch[0] <= self._age_max:
            return None
        return f"a batch is {now - self._batch[0]:.0f} s old: {self._batch[1]}"

    def _missing(self) -> str | None:
        return f"{self.missed_total} changes expired before they were read" if self.missed_total else None
