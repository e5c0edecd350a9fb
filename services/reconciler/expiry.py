"""Expires submissions whose `expires_in` is over.
The dispatcher then cancels the call, as for any outcome but success.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.reconciler.metrics import ReconcilerMetrics
from services.reconciler.store import NO_ID, Due, Store
from tidings.process.telemetry import Telemetry

NAME = "expiry"
# The number of submissions in one look, most of which have ended: some milliseconds of an index. One statement expires
# a batch.
LOOK_MAX = 5_000
BATCH_MAX = 500
# A look continues after the last row it read. A look back finds a row that became visible after it was due: a minute is
# longer than any statement of the api may take.
BACK = timedelta(seconds=60)
BACK_EVERY = timedelta(seconds=15)
# For rows that became visible even later, such as after a standby was unavailable: the longest `expires_in` is 30 days.
FAR = timedelta(days=31)
FAR_EVERY = timedelta(hours=1)


@dataclass
class _Back:
    """A look back in progress: from `after` to the position of the looks when it began."""

    after: tuple[datetime, UUID]
    upto: datetime


class Expiry:
    def __init__(self, store: Store, telemetry: Telemetry[ReconcilerMetrics], *, now: Callable[[], datetime]) -> None:
        """`now` returns an aware time. The database's clock decides whether a submission is due."""
        self._store = store
        self._metrics = telemetry.metrics
        self._log = telemetry.log
        self._now = now
        self._after: tuple[datetime, UUID] | None = None
        self._back: _Back | None = None
        self._back_at = self._far_at = datetime.min.replace(tzinfo=UTC)

    def run_once(self) -> int:
        """Look at the submissions that became due since the last look, and at the next ones of a look back; return
        their number.
        """
        now = self._now()
        after = self._after or self._begin(now)
        found = self._store.due(after, None, LOOK_MAX)
        self._expire(found)
        if found:
            after = found[-1].position
            self._store.set_low_water(NAME, UUID(int=int(after[0].timestamp() * 1000) << 80))
        self._after = after
        return len(found) + self._look_back(now, after[0])

    def _begin(self, now: datetime) -> tuple[datetime, UUID]:
        """Begin at the low-water mark: the last time that was looked at."""
        mark = self._store.low_water(NAME)
        at = datetime.fromtimestamp((mark.int >> 80) / 1000, UTC)
        return max(at, now - FAR), NO_ID

    def _look_back(self, now: datetime, upto: datetime) -> int:
        """Look at the next submissions of a look back, which begins at its interval; return their number if more
        follow.
        """
        if self._back is None:
            self._back = self._due_back(now, upto)
        if self._back is None:
            return 0
        back, self._back = self._back, None  # after a failure, wait for the next interval
        found = self._store.due(back.after, back.upto, LOOK_MAX)
        self._expire(found)
        if len(found) < LOOK_MAX:
            return 0
        self._back = _Back(found[-1].position, back.upto)
        return len(found)

    def _due_back(self, now: datetime, upto: datetime) -> _Back | None:
        if now >= self._far_at:
            self._far_at = now + FAR_EVERY
            return _Back((now - FAR, NO_ID), upto)
        if now >= self._back_at:
            self._back_at = now + BACK_EVERY
            return _Back((now - BACK, NO_ID), upto)
        return None

    def _expire(self, found: Sequence[Due]) -> None:
        open_ids = [due.id for due in found if due.open]
        for start in range(0, len(open_ids), BATCH_MAX):
            expired = self._store.expire(open_ids[start : start + BATCH_MAX])
            for id_ in expired:
                self._log.info("expired", submission_id=str(id_))
            self._metrics.expired.inc(len(expired))
