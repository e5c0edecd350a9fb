"""The dispatcher's composition root: `python -m services.dispatcher`."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Mapping
from typing import Any

import click
from kafka import KafkaProducer
from kafka.errors import FencedInstanceIdError, KafkaError
from prometheus_client import REGISTRY
from structlog.stdlib import BoundLogger

from services.dispatcher.backoff import backoff_seconds
from services.dispatcher.dispatcher import Dispatcher
from services.dispatcher.message import Callbacks
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.outbox import Outbox
from services.dispatcher.relay import Relay
from services.dispatcher.settings import DispatcherSettings
from services.dispatcher.submissions import Submissions
from tidings import log
from tidings.health import HealthServer
from tidings.kafka_topics import REQUEST_TIMEOUT_MS, change_consumer, create_topics
from tidings.log import fault
from tidings.settings import EXIT_CONFIGURATION, ConfigurationError, environment, read_or_exit
from tidings.shutdown import Shutdown
from tidings.targets import Disabled, Resolved, load_targets, resolve
from tidings.topics import RESULTS, SUBMISSIONS, TOPICS

EXIT_FENCED = 70


def _targets(settings: DispatcherSettings, logger: BoundLogger) -> Mapping[str, Resolved | Disabled]:
    resolved = {name: resolve(target, environment()) for name, target in load_targets(settings.targets_file).items()}
    for target in resolved.values():
        if isinstance(target, Disabled):
            logger.warning("target_disabled", reason=target.reason)
    return resolved


def _outbox(
    settings: DispatcherSettings,
    targets: Mapping[str, Resolved | Disabled],
    metrics: DispatcherMetrics,
    logger: BoundLogger,
) -> Outbox:
    callback_url = settings.callback_url or settings.public_url
    internal_token = settings.internal_token.get_secret_value()
    return Outbox(
        Relay(settings.relay_url, settings.relay_token.get_secret_value()),
        Submissions(
            settings.api_url,
            callback_url,
            internal_token=internal_token,
            signing_key=settings.signing_key.get_secret_value(),
            now=time.time,
        ),
        targets,
        callbacks=Callbacks(callback_url, internal_token, settings.callback_retries),
        public_url=settings.public_url,
        webhook_secret=settings.webhook_secret.get_secret_value() if settings.webhook_secret else None,
        now=time.time,
        metrics=metrics,
        log=logger,
    )


def _producer(settings: DispatcherSettings) -> Any:
    return KafkaProducer(
        bootstrap_servers=settings.kafka.split(","),
        client_id=f"tidings-dispatcher-{settings.instance}",
        acks="all",
        enable_idempotence=True,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
    )


def run(settings: DispatcherSettings, shutdown: Shutdown) -> int:
    """Work until a signal; the exit status."""
    logger = log.get("dispatcher")
    try:
        targets = _targets(settings, logger)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIGURATION
    metrics = DispatcherMetrics(REGISTRY)
    outbox = _outbox(settings, targets, metrics, logger)
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
                [SUBMISSIONS, RESULTS],
                group="tidings-dispatcher",
                instance=settings.instance,
                batch_max=settings.batch_max,
            )
            dispatcher = Dispatcher(
                consumer, producer, outbox,
                clock=time.monotonic, jitter=random.random, metrics=metrics, log=logger,
            )  # fmt: skip
            ready[:] = [consumer]
            while not shutdown.requested():
                dispatcher.run_once()
                failures = 0
        except FencedInstanceIdError:
            logger.error("fenced", by="another dispatcher of this name", instance=settings.instance)
            return EXIT_FENCED
        except KafkaError as error:
            failures += 1
            seconds = backoff_seconds(failures, random.random())  # noqa: S311  jitter, not a secret
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
    """Turn committed changes into relay messages. Settings come from the environment: docs/ARCHITECTURE.md."""
    settings = read_or_exit(DispatcherSettings)
    log.configure("dispatcher", level=settings.log_level, log_format=settings.log_format)
    sys.exit(run(settings, Shutdown().install()))


if __name__ == "__main__":
    main()
