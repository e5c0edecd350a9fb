"""Ends submissions whose `expires_in` is over. The dispatcher then cancels the call, as for any end that is no success."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from structlog.stdlib import BoundLogger

from services.reconciler.metrics import ReconcilerMetrics
from services.reconciler.store import Store

BATCH_MAX = 500
# A look at what is over since a minute is cheap, so it is made each second; one far back finds what became visible late.
NEAR = timedelta(seconds=60)
FAR = timedelta(days=31)
FAR_EVERY = timedelta(minutes=10)


class Expiry:
    def __init__(
        self, store: Store, metrics: ReconcilerMetrics, log: BoundLogger, *, now: Callable[[], datetime]
    ) -> None:
        """`now` is aware. Whether a time is over is decided by the database's clock."""
        self._store = store
        self._metrics = metrics
        self._log = log
        self._now = now
        self._far_at = datetime.min.replace(tzinfo=UTC)

    def run_once(self) -> int:
        """End what is due, a batch; how many submissions."""
        now = self._now()
        far = now >= self._far_at
        if far:
            # Before the look: one that takes too long must not take the near ones with it, again and again.
            self._far_at = now + FAR_EVERY
        due = self._store.due(now - (FAR if far else NEAR), BATCH_MAX)
        expired = self._store.expire(due) if due else []
        for id_ in expired:
            self._log.info("expired", submission_id=str(id_))
        self._metrics.expired.inc(len(expired))
        if far and len(due) == BATCH_MAX:
            self._far_at = now  # there is more
        return len(due)
