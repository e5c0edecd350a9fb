"""What the dispatcher tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class DispatcherMetrics:
    """One set of metrics in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.dispatched = Counter("tidings_dispatched", "Messages that the relay took", ["kind"], registry=registry)
        self.refused = Counter("tidings_refused", "Messages that cannot be sent at all", registry=registry)
        self.cancelled = Counter("tidings_cancels", "Submissions whose message was cancelled", registry=registry)
        self.cancels_refused = Counter(
            "tidings_cancels_refused", "Submissions whose message the relay would not cancel", registry=registry
        )
        self.unknown = Counter(
            "tidings_dispatcher_unknown", "Changes of submissions that the api never came to know", registry=registry
        )
        self.unknown_waiting = Gauge(
            "tidings_dispatcher_unknown_waiting", "Submissions that the api does not know yet", registry=registry
        )
        self.skipped = Counter("tidings_skipped", "Submissions that had ended before they were sent", registry=registry)
        self.dead_letters = Counter(
            "tidings_dispatcher_dead_letters", "Changes that could not be decoded", registry=registry
        )
        self.unavailable = Counter(
            "tidings_dispatcher_unavailable", "Batches put back as relay or api did not answer", registry=registry
        )
        self.waiting = Gauge(
            "tidings_dispatcher_waiting", "1 while paused for a relay or api that does not answer", registry=registry
        )
