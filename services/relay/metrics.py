"""The relay's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class RelayMetrics:
    """One set of metrics in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.accepted = Counter("relay_accepted", "Messages committed", ["kind"], registry=registry)
        self.attempts = Counter("relay_attempts", "Attempts that ended", ["outcome"], registry=registry)
        self.put_offs = Counter(
            "relay_put_offs", "Claims that came to no attempt, for want of a place", registry=registry
        )
        self.seconds = Histogram(
            "relay_attempt_seconds",
            "How long the destination took",
            buckets=(0.05, 0.2, 1, 2, 5, 10, 30, 60, 120, 300, 600),
            registry=registry,
        )
        self.in_flight = Gauge("relay_in_flight", "Calls this process holds now", registry=registry)
        self.waiting = Gauge(
            "relay_queue_depth",
            "Messages that wait, of all processes; of each kind 100,000 are counted",
            registry=registry,
        )
        self.active = Gauge("relay_active", "Messages under way, of all processes", registry=registry)
        self.oldest = Gauge("relay_oldest_due_age_seconds", "How long the oldest has been due", registry=registry)
        self.expiries = Counter("relay_lease_expiries", "Messages taken back from dead processes", registry=registry)
        self.start_notices = Counter(
            "relay_start_notices",
            "Begun attempts that were to be told: told, refused, dropped, or over before their turn came",
            ["outcome"],
            registry=registry,
        )
        self.unknown = Counter("relay_unknown_fates", "Attempts of which nobody knows the end", registry=registry)
        self.cancelled = Counter("relay_cancelled", "Messages cancelled", registry=registry)
        self.cooling = Gauge("relay_cooling_keys", "Flow keys that pause as their provider asked", registry=registry)
