"""The Prometheus metrics of the reconciler."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class ReconcilerMetrics:
    """One set of metrics in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.expired = Counter("tidings_expired", "Submissions ended as expired", registry=registry)
        self.dispatched_again = Counter(
            "tidings_dispatched_again",
            "Open submissions without a relay message that were dispatched again",
            registry=registry,
        )
        self.callbacks_retried = Counter(
            "tidings_callbacks_driven", "Callbacks among the relay's dead letters that were retried", registry=registry
        )
        self.emitted_again = Counter(
            "tidings_emitted_again",
            "Results emitted again because their completion event was missing",
            registry=registry,
        )
        self.contents_settled = Counter(
            "tidings_contents_settled",
            "Removed contents that were removed a last time, after the relay had finished with them",
            registry=registry,
        )
        self.unaccounted = Gauge(
            "tidings_messages_without_submission",
            "Live relay messages of submissions that do not exist",
            registry=registry,
        )
        self.open = Gauge("tidings_open_submissions", "Open submissions older than the grace", registry=registry)
        self.outstanding = Gauge(
            "tidings_outstanding_results", "Results whose event was not read yet", registry=registry
        )
        self.faults = Counter("tidings_reconciler_faults", "Rounds that failed", ["look"], registry=registry)
