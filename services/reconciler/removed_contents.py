"""Removals of contents, of which something may still come: an answer under way, a callback among the dead letters. When
the relay has nothing under way any more, the content is removed once more, here and there, and that is the last time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from structlog.stdlib import BoundLogger

from services.reconciler.metrics import ReconcilerMetrics
from services.reconciler.relay import LABELS_MAX, Relay, UnsupportedError
from services.reconciler.store import NO_ID, Store
from tidings.contract.relay_labels import webhook_label

# Each has two labels: that of its calls, and that of its webhooks.
REMOVALS_MAX = LABELS_MAX // 2
_BEGINNING = (datetime.min.replace(tzinfo=UTC), NO_ID)


class RemovedContents:
    """A pass goes over all removals that are not settled and older than the grace, some at a time. No low-water mark:
    an index holds these alone.
    """

    def __init__(
        self, store: Store, relay: Relay, metrics: ReconcilerMetrics, log: BoundLogger, *, grace_seconds: float
    ) -> None:
        """`grace_seconds`: in that time the dispatcher hands over a message whose body it has read."""
        self._store = store
        self._relay = relay
        self._metrics = metrics
        self._log = log
        self._grace_seconds = grace_seconds
        self._after = _BEGINNING

    def run_once(self) -> int:
        """Look at the next removals; how many. 0 at the end of a pass."""
        found = self._store.unsettled(self._after, self._grace_seconds, REMOVALS_MAX)
        live = self._live([id_ for _, id_ in found]) if found else frozenset()
        for removed_at, id_ in found:
            if live.isdisjoint((str(id_), webhook_label(id_))):
                self._store.settle(id_, removed_at)
                self._metrics.contents_settled.inc()
                self._log.info("content_settled", submission_id=str(id_))
        if len(found) < REMOVALS_MAX:
            self._after = _BEGINNING
            return 0
        self._after = found[-1]
        return len(found)

    def _live(self, ids: list[UUID]) -> frozenset[str]:
        labels = [label for id_ in ids for label in (str(id_), webhook_label(id_))]
        try:
            return self._relay.holding(labels).live
        except UnsupportedError:
            return frozenset()  # such a relay removes nothing either; the api tells of each late answer
