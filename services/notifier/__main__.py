"""The notifier's composition root: `python -m services.notifier`."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from prometheus_client import REGISTRY

from services.notifier.channels import Channels
from services.notifier.metrics import NotifierMetrics
from services.notifier.notifier import FencedError, Notifier
from services.notifier.settings import NotifierSettings
from tidings import log
from tidings.health import HealthServer
from tidings.kafka_topics import REQUEST_TIMEOUT_MS, change_consumer, create_topics
from tidings.log import fault
from tidings.settings import read_or_exit
from tidings.shutdown import Shutdown
from tidings.topics import COMPLETIONS, RESULTS, TOPICS

# What a crash leaves open blocks readers of committed events until the broker ends it, or until we are back.
TRANSACTION_TIMEOUT_MS = 10_000
EXIT_FENCED = 70
# kafka-python's sender sleeps for so long, 100 ms by default, when a transaction begins while the markers of the one before
# are still being written, and everything behind it waits: seen in one transaction of seventy at 200 events a second.
RETRY_BACKOFF_MS = 5
BACKOFF_SECONDS_MAX = 10.0
LAG_EVERY_SECONDS = 2.0


def _producer(settings: NotifierSettings) -> Any:
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka.split(","),
        client_id=f"tidings-notifier-{settings.instance}",
        transactional_id=f"tidings-notifier-{settings.instance}",
        transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        retry_backoff_ms=RETRY_BACKOFF_MS,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
    )
    producer.init_transactions()
    return producer


def _channels(settings: NotifierSettings) -> Channels:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.split(","), request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        known = [name for name in admin.list_topics() if name.startswith(f"{COMPLETIONS}.")]
    finally:
        admin.close()
    return Channels(
        lambda topics: create_topics(settings.kafka, topics), known=known, channels_max=settings.channels_max
    )


def _measure_lag(consumer: Any, metrics: NotifierMetrics) -> None:
    assigned = consumer.assignment()
    if assigned:
        ends = consumer.end_offsets(assigned)
        metrics.lag.set(sum(max(0, end - consumer.position(tp)) for tp, end in ends.items()))


def run(settings: NotifierSettings, shutdown: Shutdown) -> int:
    """Work until a signal; the exit status."""
    logger = log.get("notifier")
    metrics = NotifierMetrics(REGISTRY)
    ready: list[Any] = []
    health = HealthServer(
        settings.listen, {"kafka": lambda: None if ready and ready[0].assignment() else "no partitions assigned yet"}
    ).start()
    failures = 0
    while not shutdown.requested():
        consumer = producer = None
        try:
            create_topics(settings.kafka, TOPICS)
            producer = _producer(settings)
            consumer = change_consumer(
                settings.kafka,
                [RESULTS],
                group="tidings-notifier",
                instance=settings.instance,
                batch_max=settings.batch_max,
            )
            notifier = Notifier(
                consumer, producer, _channels(settings),
                public_url=settings.public_url, metrics=metrics, log=logger,
            )  # fmt: skip
            ready[:] = [consumer]
            measured = 0.0
            while not shutdown.requested():
                notifier.run_once()
                failures = 0
                if time.monotonic() - measured > LAG_EVERY_SECONDS:
                    _measure_lag(consumer, metrics)
                    measured = time.monotonic()
        except FencedError as error:
            logger.error("fenced", by="another notifier of this name", instance=settings.instance, error=str(error))
            return EXIT_FENCED
        except KafkaError as error:
            failures += 1
            seconds = min(BACKOFF_SECONDS_MAX, 0.2 * 2 ** min(failures, 10))
            logger.warning("kafka_failed", error=fault(error), retry_in_seconds=seconds)
            shutdown.wait(seconds)
        finally:
            ready.clear()
            if consumer is not None:
                consumer.close()
            if producer is not None:
                producer.close(timeout=5)
    health.stop()
    logger.info("stopped")
    return 0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Turn committed results into completion events. Settings come from the environment: docs/ARCHITECTURE.md."""
    settings = read_or_exit(NotifierSettings)
    log.configure("notifier", level=settings.log_level, log_format=settings.log_format)
    sys.exit(run(settings, Shutdown().install()))


if __name__ == "__main__":
    main()
