"""The Prometheus metrics of the notifier."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class NotifierMetrics:
    """One set of metrics in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.completions = Counter("tidings_completions", "Completion events committed", ["outcome"], registry=registry)
        self.dead_letters = Counter(
            "tidings_notifier_dead_letters", "Changes that could not be decoded", registry=registry
        )
        self.channels_refused = Counter(
            "tidings_notifier_channels_refused",
            "Events not written to their channel's topic: it cannot be created, or refuses them",
            registry=registry,
        )
        self.channels_held = Counter(
            "tidings_notifier_channels_held",
            "Events held until their channel's topic exists, or is tried alone",
            registry=registry,
        )
        self.aborts = Counter("tidings_notifier_aborts", "Transactions aborted and retried", registry=registry)
        self.batch = Histogram(
            "tidings_notifier_batch_size",
            "Changes in one transaction",
            buckets=(1, 2, 5, 10, 50, 100, 500, 1000),
            registry=registry,
        )
        self.delay = Histogram(
            "tidings_notifier_delay_seconds",
            "Time from the result's row to its committed event, including the difference of the clocks",
            buckets=(0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300),
            registry=registry,
        )
        self._last = 0.0
        age = Gauge(
            "tidings_notifier_last_event_age_seconds",
            "Time since the last event; -1 if there was none",
            registry=registry,
        )
        age.set_function(lambda: time.time() - self._last if self._last else -1)

    def record_event(self) -> None:
        self._last = time.time()
