"""The relay's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class RelayMetrics:
    """One set of metrics in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.accepted = Counter("relay_accepted", "Messages committed", ["kind"], registry=registry)
        self.attempts = Counter("relay_attempts", "Attempts that ended", ["outcome"], registry=registry)
        self.put_offs = Counter(
            "relay_put_offs", "Claims without an attempt, as a resource was missing", registry=registry
        )
        self.seconds = Histogram(
            "relay_attempt_seconds",
            "The duration of an attempt",
            buckets=(0.05, 0.2, 1, 2, 5, 10, 30, 60, 120, 300, 600),
            registry=registry,
        )
        self.in_flight = Gauge("relay_in_flight", "Calls this process holds now", registry=registry)
        self.waiting = Gauge(
            "relay_queue_depth",
            "Messages that wait, of all processes; of each kind 100,000 are counted",
            registry=registry,
        )
        self.active = Gauge("relay_active", "Messages in progress, of all processes", registry=registry)
        self.oldest = Gauge(
            "relay_oldest_due_age_seconds", "The time since the oldest message became due", registry=registry
        )
        self.expiries = Counter("relay_lease_expiries", "Messages recovered from dead processes", registry=registry)
        self.start_notices = Counter(
            "relay_start_notices",
            "Start notices: told, refused, dropped, or over (the attempt had ended before)",
            ["outcome"],
            registry=registry,
        )
        self.unknown = Counter("relay_unknown_fates", "Attempts of unknown fate", registry=registry)
        self.cancelled = Counter("relay_cancelled", "Messages cancelled", registry=registry)
        self.cooling = Gauge(
            "relay_cooling_keys", "Flow keys that are paused because their provider asked for a wait", registry=registry
        )
