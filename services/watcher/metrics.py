"""The Prometheus metrics of the watcher."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class WatcherMetrics:
    """One set of metrics in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.running = Gauge("tidings_connector_running", "1 while connector and task run", registry=registry)
        self.restarts = Counter("tidings_connector_restarts", "Restarts of a failed connector", registry=registry)
        self.retained_bytes = Gauge(
            "tidings_slot_retained_bytes", "WAL that Postgres keeps for the connector", registry=registry
        )
        self.slots_lost = Counter("tidings_slots_lost", "Lost slots that were dropped", registry=registry)
