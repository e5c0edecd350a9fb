"""The Prometheus metrics of the dispatcher."""

from __future__ import annotations

from copy import copy

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

    def of_removals(self, registry: CollectorRegistry) -> DispatcherMetrics:
        """The metrics of the loop of removals, which waits independently and has no unknown submissions."""
        own = copy(self)
        own.unavailable = Counter(
            "tidings_dispatcher_removals_unavailable",
            "Batches of removals put back as the relay did not answer",
            registry=registry,
        )
        own.waiting = Gauge(
            "tidings_dispatcher_removals_waiting",
            "1 while removals are paused for a relay that does not answer",
            registry=registry,
        )
        own.unknown_waiting = Gauge("tidings_dispatcher_removals_unknown", "Always 0", registry=None)
        return own
