"""The composition root of the reconciler: `python -m services.reconciler`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click
from kafka import KafkaConsumer
from prometheus_client import REGISTRY

from services.reconciler.completions import Completions, Intervals
from services.reconciler.event_reader import KafkaEventReader
from services.reconciler.expiry import Expiry
from services.reconciler.metrics import ReconcilerMetrics
from services.reconciler.old_months import OldMonths
from services.reconciler.open_submissions import Limits, OpenSubmissions
from services.reconciler.periodic_look import Look, PeriodicLook
from services.reconciler.relay_client import RelayClient
from services.reconciler.removed_contents import RemovedContents
from services.reconciler.settings import ReconcilerSettings
from services.reconciler.store import Store
from services.reconciler.stray_messages import StrayMessages
from tidings.contract.topics import COMPLETIONS, TOPICS
from tidings.database.queries import load_queries
from tidings.kafka.topics import REQUEST_TIMEOUT_MS, create_topics
from tidings.process import log
from tidings.process.health import serve_health
from tidings.process.settings import read_or_exit
from tidings.process.shutdown import Shutdown
from tidings.process.telemetry import Telemetry

# A nudge reaches Kafka within seconds; it is kept for a day for troubleshooting.
NUDGES_KEPT_SECONDS = 86_400
PRUNE_INTERVAL_SECONDS = 3_600
DAY_SECONDS = 86_400
STRAY_INTERVAL_SECONDS = 60.0
# A look in progress waits longer than this for the database or the relay only if they are faulty.
JOIN_SECONDS = 5.0


def _looks(settings: ReconcilerSettings, telemetry: Telemetry[ReconcilerMetrics], shutdown: Shutdown) -> list[Look]:
    """Build the looks. Each runs in its own thread, and therefore has its own connections."""
    queries = load_queries("services.reconciler")
    stores = [Store(settings.database_url.get_secret_value(), queries) for _ in range(6)]
    relays = [RelayClient(settings.relay_url, settings.relay_token.get_secret_value()) for _ in range(3)]
    expiry = Expiry(stores[0], telemetry, now=lambda: datetime.now(UTC))
    limits = Limits(settings.grace_seconds, settings.repeat_seconds)
    open_submissions = OpenSubmissions(stores[1], relays[0], telemetry, clock=time.monotonic, limits=limits)
    events = KafkaEventReader(lambda: _consumer(settings), COMPLETIONS, time.monotonic)
    completions = Completions(
        stores[2],
        events,
        telemetry,
        clock=time.monotonic,
        intervals=Intervals(settings.settle_seconds, settings.grace_seconds, settings.repeat_seconds),
    )
    removed = RemovedContents(stores[5], relays[2], telemetry, grace_seconds=settings.grace_seconds)
    strays = StrayMessages(stores[3], relays[1], telemetry)

    def prune() -> int:
        stores[4].prune_nudges(NUDGES_KEPT_SECONDS)
        return 0

    def close_completions() -> None:
        events.close()
        stores[2].close()

    old_months = _old_months(settings, shutdown)
    return [
        Look("expiry", settings.expiry_interval_seconds, expiry.run_once, stores[0].close),
        Look("open_submissions", settings.interval_seconds, open_submissions.run_once, stores[1].close),
        Look(
            "completions",
            settings.interval_seconds,
            completions.run_once,
            close_completions,
            fault=lambda: events.fault,
        ),
        Look(
            "stray_messages", max(settings.interval_seconds, STRAY_INTERVAL_SECONDS), strays.run_once, stores[3].close
        ),
        Look("removed_contents", settings.interval_seconds, removed.run_once, stores[5].close),
        Look("nudges", PRUNE_INTERVAL_SECONDS, prune, stores[4].close),
        *old_months,
    ]


def _old_months(settings: ReconcilerSettings, shutdown: Shutdown) -> list[Look]:
    if settings.retention_days is None:
        return []
    url = settings.database_url.get_secret_value()
    work = OldMonths(url, settings.retention_days, log.get("reconciler"), stop=shutdown.requested)
    return [Look("old_months", DAY_SECONDS, work.run_once, lambda: None)]


def _consumer(settings: ReconcilerSettings) -> Any:
    create_topics(settings.cluster, TOPICS)
    return KafkaConsumer(
        **settings.cluster.options,
        client_id="tidings-reconciler",
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        metadata_max_age_ms=30_000,
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Dispatch, emit and call back again what was lost, and expire submissions. Settings: docs/reference/settings.md."""
    settings = read_or_exit(ReconcilerSettings)
    log.configure("reconciler", level=settings.log_level, log_format=settings.log_format)
    shutdown = Shutdown().install()
    telemetry = Telemetry(ReconcilerMetrics(REGISTRY), log.get("reconciler"))
    running = [
        PeriodicLook(look, shutdown, telemetry, time.monotonic) for look in _looks(settings, telemetry, shutdown)
    ]
    health = serve_health("RECONCILER_LISTEN", settings.listen, {each.name: each.fault for each in running})
    for each in running:
        each.start()
    while not shutdown.requested():
        shutdown.wait(3600)
    for each in running:
        each.join(JOIN_SECONDS)
    health.stop()


if __name__ == "__main__":
    main()
