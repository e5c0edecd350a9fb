"""Ends submissions whose `expires_in` is over. The dispatcher then cancels the call, as for any end that is no success."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from structlog.stdlib import BoundLogger

from services.reconciler.metrics import ReconcilerMetrics
from services.reconciler.store import NO_ID, Due, Store

NAME = "expiry"
# Submissions of one look, most of which have ended: some milliseconds of an index. One statement ends a batch.
LOOK_MAX = 5_000
BATCH_MAX = 500
# A look goes on behind what it has seen. A row that became visible after its time was over is found by a look back: a
# minute is longer than any statement of the api may take.
BACK = timedelta(seconds=60)
BACK_EVERY = timedelta(seconds=15)
# Later still as behind a standby that was away: 30 days are the longest `expires_in`.
FAR = timedelta(days=31)
FAR_EVERY = timedelta(hours=1)


@dataclass
class _Back:
    """A look back under way: from `after` to where the looks had come when it began."""

    after: tuple[datetime, UUID]
    upto: datetime


class Expiry:
    def __init__(
        self, store: Store, metrics: ReconcilerMetrics, log: BoundLogger, *, now: Callable[[], datetime]
    ) -> None:
        """`now` is aware. Whether a time is over is decided by the database's clock."""
        self._store = store
        self._metrics = metrics
        self._log = log
        self._now = now
        self._after: tuple[datetime, UUID] | None = None
        self._back: _Back | None = None
        self._back_at = self._far_at = datetime.min.replace(tzinfo=UTC)

    def run_once(self) -> int:
        """Look at what is due since the last look, and at the next of a look back; how many submissions."""
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
        """At the low-water mark: the last time that was looked at."""
        mark = self._store.low_water(NAME)
        at = datetime.fromtimestamp((mark.int >> 80) / 1000, UTC)
        return max(at, now - FAR), NO_ID

    def _look_back(self, now: datetime, upto: datetime) -> int:
        """The next of a look back, begun when it is time; how many when there is more."""
        if self._back is None:
            self._back = self._due_back(now, upto)
        if self._back is None:
            return 0
        back, self._back = self._back, None  # one that fails is not repeated before its time
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
