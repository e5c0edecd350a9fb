"""The Prometheus metrics of the dispatcher."""

from __future__ import annotations

from copy import copy

from prometheus_client import CollectorRegistry, Counter, Gauge


class DispatcherMetrics:
    """One set of metrics in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.dispatched = Counter("tidings_dispatched", "Messages that the relay accepted", ["kind"], registry=registry)
        self.refused = Counter("tidings_refused", "Messages that cannot be sent at all", registry=registry)
        self.cancelled = Counter("tidings_cancels", "Submissions whose message was cancelled", registry=registry)
        self.cancels_refused = Counter(
            "tidings_cancels_refused", "Submissions whose message the relay refused to cancel", registry=registry
        )
        self.unknown = Counter(
            "tidings_dispatcher_unknown",
            "Changes written to tidings.dead-letters because the api did not know their submission",
            registry=registry,
        )
        self.unknown_waiting = Gauge(
            "tidings_dispatcher_unknown_waiting", "Submissions that the api does not know yet", registry=registry
        )
        self.skipped = Counter("tidings_skipped", "Submissions that had ended before they were sent", registry=registry)
        self.dead_letters = Counter(
            "tidings_dispatcher_dead_letters", "Changes that could not be decoded", registry=registry
        )
        self.unavailable = Counter(
            "tidings_dispatcher_unavailable",
            "Batches retried because the relay or the api did not respond",
            registry=registry,
        )
        self.waiting = Gauge(
            "tidings_dispatcher_waiting",
            "1 while paused because the relay or the api does not respond",
            registry=registry,
        )

    def of_removals(self, registry: CollectorRegistry) -> DispatcherMetrics:
        """The metrics of the loop of removals, which waits independently and has no unknown submissions."""
        own = copy(self)
        own.unavailable = Counter(
            "tidings_dispatcher_removals_unavailable",
            "Batches of removals retried because the relay did not respond",
            registry=registry,
        )
        own.waiting = Gauge(
            "tidings_dispatcher_removals_waiting",
            "1 while removals are paused because the relay does not respond",
            registry=registry,
        )
        own.unknown_waiting = Gauge("tidings_dispatcher_removals_unknown", "Always 0", registry=None)
        return own
