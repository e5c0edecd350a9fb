"""Removals of contents for which content may still arrive: from an answer in progress, or a callback among the dead
letters. When the relay has nothing in progress any more, the content is removed once more, from the database and
from the relay, and the removal is settled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

from services.reconciler.metrics import ReconcilerMetrics
from services.reconciler.relay_client import LABELS_MAX, RelayClient, UnsupportedError
from services.reconciler.store import NO_ID, Store
from tidings.contract.relay_labels import webhook_label
from tidings.contract.removals import removal_requests
from tidings.process.telemetry import Telemetry

# Each removal has two labels: that of its calls, and that of its webhooks.
REMOVALS_MAX = LABELS_MAX // 2
# The number of removals in one transaction, which locks the rows that it erases.
ERASED_MAX = 100
_BEGINNING = (datetime.min.replace(tzinfo=UTC), NO_ID)


class RemovedContents:
    """A pass examines, in bounded steps, all removals that are not settled and older than the grace.
    It needs no low-water mark: an index contains only these rows.
    """

    def __init__(
        self, store: Store, relay: RelayClient, telemetry: Telemetry[ReconcilerMetrics], *, grace_seconds: float
    ) -> None:
        """`grace_seconds`: the time within which the dispatcher publishes a message whose body it has read."""
        self._store = store
        self._relay = relay
        self._metrics = telemetry.metrics
        self._log = telemetry.log
        self._grace_seconds = grace_seconds
        self._after = _BEGINNING

    def run_once(self) -> int:
        """Look at the next removals; return their number, or 0 at the end of a pass."""
        found = self._store.unsettled(self._after, self._grace_seconds, REMOVALS_MAX)
        # In order of time: if a submission has several removals, the last one counts.
        upto = {id_: removed_at for removed_at, id_ in found}
        finished = self._finished(list(upto))
        for start in range(0, len(finished), ERASED_MAX):
            self._settle({id_: upto[id_] for id_ in finished[start : start + ERASED_MAX]})
        if len(found) < REMOVALS_MAX:
            self._after = _BEGINNING
            return 0
        self._after = found[-1]
        return len(found)

    def _finished(self, ids: Sequence[UUID]) -> list[UUID]:
        """Return those of `ids` for which the relay has nothing in progress."""
        labels = [label for id_ in ids for label in (str(id_), webhook_label(id_))]
        if not labels:
            return []
        try:
            live = self._relay.holding(labels).live
        except UnsupportedError:
            live = frozenset()  # such a relay removes nothing either; the api reports each late answer
        return [id_ for id_ in ids if live.isdisjoint((str(id_), webhook_label(id_)))]

    def _settle(self, upto: Mapping[UUID, datetime]) -> None:
        """Remove the content at the relay, then settle the removals. After a failure the next pass finds them."""
        with suppress(UnsupportedError):
            for request in removal_requests(self._store.erase_again(list(upto))):
                self._relay.remove_contents(request)
        self._store.settle(upto)
        self._metrics.contents_settled.inc(len(upto))
        for id_ in upto:
            self._log.info("content_settled", submission_id=str(id_))
