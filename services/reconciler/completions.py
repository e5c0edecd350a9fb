"""Compares results with the completion events in Kafka.
A result without an event is emitted again, with the same id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from services.reconciler.metrics import ReconcilerMetrics
from services.reconciler.read_results import Hour, ReadResults
from services.reconciler.store import NO_ID, Store
from tidings.process.telemetry import Telemetry

NAME = "completions"
ROWS_MAX = 1_000
# The maximum of rows that wait for their event, and of events that arrived before their row was read. Beyond either,
# the other side is read first.
OUTSTANDING_MAX = 50_000
AHEAD_MAX = 200_000
# The topic keeps events for seven days.
LOOKBACK_SECONDS_MAX = 6 * 86_400
# An event id contains the clock of the api; an event's offset by time uses the clock of the broker.
CLOCKS_DIFFER_MS = 600_000
# Results that became visible later than the settle time lie before the cursor. At this interval the results of each
# hour are counted, by their index, and compared with the number that was read.
FAR_EVERY_SECONDS = 3_600.0


class EventReader(Protocol):
    """The topic of completions from a given time on, with isolation level read committed."""

    def begin(self, unix_ms: int) -> None:
        """Read from the first event at or after this time."""

    def read(self) -> list[UUID]:
        """Return the ids of the next events; none if nothing arrived within a second or so."""

    def caught_up(self) -> bool:
        """Return whether every event that is committed now was read."""


@dataclass
class _Outstanding:
    submission_id: UUID
    since: float
    nudged: int = 0


@dataclass(frozen=True)
class Intervals:
    """`settle_seconds`: the time in which a row is committed after its id was made; `grace_seconds`: the age from which
    an event is missing; `repeat_seconds`: the pause before it is emitted once more.
    """

    settle_seconds: float
    grace_seconds: float
    repeat_seconds: float


class Completions:
    def __init__(
        self,
        store: Store,
        events: EventReader,
        telemetry: Telemetry[ReconcilerMetrics],
        *,
        clock: Callable[[], float],
        intervals: Intervals,
    ) -> None:
        """`clock` returns monotonic seconds."""
        self._store = store
        self._events = events
        self._metrics = telemetry.metrics
        self._log = telemetry.log
        self._clock = clock
        self._intervals = intervals
        self._cursor: UUID | None = None
        self._following = False
        self._read = ReadResults(NO_ID)
        self._to_count: deque[Hour] = deque()
        self._far_at = clock() + FAR_EVERY_SECONDS
        self._rows: dict[UUID, _Outstanding] = {}
        self._events_ahead: set[UUID] = set()

    def run_once(self) -> int:
        """Read a bounded number of rows and events; return the number of rows and events read and of hours counted.

        An error discards nothing that was read. After an error of the topic, events are read again from the first row
        whose event was not seen; reading an event twice changes nothing.
        """
        if self._cursor is None:
            self._begin()
        if not self._following:
            self._follow()
        done = self._read_rows()
        if len(self._events_ahead) < AHEAD_MAX:
            done += self._read_events()
        done += self._look_far()
        with self._reading():
            caught_up = self._events.caught_up()
        if caught_up:
            self._nudge()
        self._metrics.outstanding.set(len(self._rows))
        self._store.set_low_water(NAME, min(self._rows, default=self._cursor) or UUID(int=0))
        return done

    def _begin(self) -> None:
        """Begin at the low-water mark; the first time at the present, because older events may be past
        their retention.
        """
        mark = self._store.low_water(NAME)
        mark = self._store.floor(self._intervals.settle_seconds) if mark == NO_ID else mark
        mark = max(mark, self._store.floor(LOOKBACK_SECONDS_MAX))
        self._read = ReadResults(UUID(int=mark.int - 1))
        self._begin_after(UUID(int=mark.int - 1))

    def _begin_after(self, cursor: UUID) -> None:
        self._rows.clear()
        self._events_ahead.clear()
        self._to_count.clear()
        self._cursor = cursor
        self._following = False

    def _follow(self) -> None:
        assert self._cursor is not None
        first = min(self._rows, default=self._cursor)
        self._events.begin((first.int >> 80) - CLOCKS_DIFFER_MS)
        self._following = True

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """After a failure the position in the topic is unknown, so the events are read again."""
        try:
            yield
        except Exception:
            self._following = False
            raise

    def _read_rows(self) -> int:
        assert self._cursor is not None
        if len(self._rows) >= OUTSTANDING_MAX:
            return 0
        found = self._store.ended(self._cursor, self._intervals.settle_seconds, ROWS_MAX)
        now = self._clock()
        for submission_id, event_id in found:
            if event_id in self._events_ahead:
                self._events_ahead.discard(event_id)
            else:
                self._rows[event_id] = _Outstanding(submission_id, now)
            self._cursor = event_id
            self._read.add(event_id)
        return len(found)

    def _look_far(self) -> int:
        """Count one hour; return the number of hours counted.
        An hour with more results than were read is read again, with all that follows.
        """
        assert self._cursor is not None
        if not self._to_count and self._clock() >= self._far_at:
            self._to_count = deque(self._read.hours(self._store.floor(LOOKBACK_SECONDS_MAX), self._cursor))
            self._far_at = self._clock() + FAR_EVERY_SECONDS
        if not self._to_count:
            return 0
        hour = self._to_count[0]
        late = self._store.count_ended(hour.after, hour.upto) - hour.count
        self._to_count.popleft()
        if late > 0:
            self._log.warning("became_visible_late", results=late)
            self._read.forget_from(hour)
            self._begin_after(hour.after)
        return 1

    def _read_events(self) -> int:
        assert self._cursor is not None
        with self._reading():
            ids = self._events.read()
        for event_id in ids:
            if self._rows.pop(event_id, None) is None and event_id > self._cursor:
                self._events_ahead.add(event_id)
        return len(ids)

    def _nudge(self) -> None:
        now = self._clock()
        missing = {
            event_id: row
            for event_id, row in self._rows.items()
            if now - row.since >= (self._intervals.repeat_seconds if row.nudged else self._intervals.grace_seconds)
        }
        if not missing:
            return
        nudged = set(self._store.nudge_results([row.submission_id for row in missing.values()]))
        for event_id, row in missing.items():
            row.since, row.nudged = now, row.nudged + 1
            if row.submission_id in nudged:
                self._metrics.emitted_again.inc()
                self._log.warning(
                    "emitted_again", submission_id=str(row.submission_id), event_id=str(event_id), times=row.nudged
                )
            else:
                del self._rows[event_id]  # the row no longer exists: its month was dropped
