"""Looks at the relay's live messages for submissions that do not exist, and reports them: no process made the
submission, or its row was lost. The messages are kept, because the relay may have other clients.
"""

from __future__ import annotations

from services.reconciler.metrics import ReconcilerMetrics
from services.reconciler.relay_client import LABELS_MAX, RelayClient, UnsupportedError
from services.reconciler.store import Store
from tidings.contract.ids import parse_submission_id
from tidings.process.telemetry import Telemetry

# The number of labels of one pass in the log; the gauge counts all.
NAMED_MAX = 20


class StrayMessages:
    def __init__(self, store: Store, relay: RelayClient, telemetry: Telemetry[ReconcilerMetrics]) -> None:
        self._store = store
        self._relay = relay
        self._metrics = telemetry.metrics
        self._log = telemetry.log
        self._after = ""
        self._stray: list[str] = []
        self._unsupported = False

    def run_once(self) -> int:
        """Look at the next labels; return their number, or 0 at the end of a pass."""
        if self._unsupported:
            return 0
        try:
            labels = self._relay.live_labels(self._after)
        except UnsupportedError:
            self._unsupported = True
            return 0
        ids = [id_ for label in labels if (id_ := parse_submission_id(label)) is not None]
        known = self._store.known(ids) if ids else set()
        self._stray += [str(id_) for id_ in ids if id_ not in known]
        if len(labels) < LABELS_MAX:
            self._end_pass()
            return 0
        self._after = labels[-1]
        return len(labels)

    def _end_pass(self) -> None:
        self._metrics.unaccounted.set(len(self._stray))
        for label in self._stray[:NAMED_MAX]:
            self._log.error("message_without_submission", label=label)
        self._after, self._stray = "", []
