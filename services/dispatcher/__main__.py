"""The composition root of the dispatcher: `python -m services.dispatcher`."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import click
from kafka import KafkaProducer
from prometheus_client import REGISTRY
from structlog.stdlib import BoundLogger

from services.dispatcher.dispatcher import Dispatcher
from services.dispatcher.message import Callbacks
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.outbox import Outbox, Webhooks
from services.dispatcher.relay import Relay
from services.dispatcher.settings import DispatcherSettings
from services.dispatcher.submissions import Submissions
from tidings.contract.targets import Disabled, Resolved, load_targets, resolve
from tidings.contract.topics import REMOVALS, RESULTS, SUBMISSIONS, TOPICS
from tidings.kafka import loop
from tidings.kafka.changes import Changes, change_consumer
from tidings.kafka.loop import Work
from tidings.kafka.topics import BOOTSTRAP_TIMEOUT_MS, REQUEST_TIMEOUT_MS, create_topics
from tidings.kafka.transactions import discard
from tidings.process import log
from tidings.process.progress import Progress
from tidings.process.settings import EXIT_CONFIGURATION, ConfigurationError, environment, read_or_exit
from tidings.process.shutdown import Shutdown

GROUP = "tidings-dispatcher"
REMOVALS_GROUP = "tidings-removals"


def _targets(settings: DispatcherSettings, logger: BoundLogger) -> Mapping[str, Resolved | Disabled]:
    resolved = {name: resolve(target, environment()) for name, target in load_targets(settings.targets_file).items()}
    for target in resolved.values():
        if isinstance(target, Disabled):
            logger.warning("target_disabled", reason=target.reason)
    return resolved


def outbox(
    settings: DispatcherSettings,
    targets: Mapping[str, Resolved | Disabled],
    metrics: DispatcherMetrics,
    logger: BoundLogger,
) -> Outbox:
    """Build the outbox, which sends and cancels messages, from the settings."""
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
        webhooks=Webhooks(
            settings.public_url,
            settings.webhook_secret.get_secret_value() if settings.webhook_secret else None,
            public_only=settings.webhook_addresses == "public",
        ),
        now=time.time,
        clock=time.monotonic,
        metrics=metrics,
        log=logger,
    )


def _producer(settings: DispatcherSettings, group: str) -> Any:
    return KafkaProducer(
        **settings.cluster.options,
        client_id=f"{group}-{settings.instance}",
        acks="all",
        enable_idempotence=True,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        max_block_ms=BOOTSTRAP_TIMEOUT_MS,
        bootstrap_timeout_ms=BOOTSTRAP_TIMEOUT_MS,
    )


def run(settings: DispatcherSettings, shutdown: Shutdown) -> int:
    """Run until a signal; return the exit status."""
    logger = log.get("dispatcher")
    try:
        targets = _targets(settings, logger)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIGURATION
    metrics = DispatcherMetrics(REGISTRY)
    removals_metrics = metrics.of_removals(REGISTRY)
    # Each loop has its own connections to the relay.
    sending, removing = (outbox(settings, targets, made, logger) for made in (metrics, removals_metrics))
    progress, removals_progress = Progress(time.monotonic), Progress(time.monotonic)

    def connect(stack: ExitStack) -> Work:
        changes, producer = _joined(stack, settings, GROUP, [SUBMISSIONS, RESULTS], progress)
        return _work(changes, producer, sending, progress, metrics)

    def connect_removals(stack: ExitStack) -> Work:
        changes, producer = _joined(stack, settings, REMOVALS_GROUP, [REMOVALS], removals_progress)
        return _work(changes, producer, removing, removals_progress, removals_metrics)

    reader = loop.Reader("dispatcher", settings.instance, settings.cluster, settings.listen)
    # A separate loop: any number of removals, each of which may take the relay long, must not delay a call.
    beside = loop.Beside("removals", connect_removals, removals_progress)
    return loop.run(reader, connect, shutdown=shutdown, progress=progress, log=logger, beside=beside)


def _work(changes: Changes, producer: Any, made: Outbox, progress: Progress, metrics: DispatcherMetrics) -> Work:
    dispatcher = Dispatcher(
        changes, producer, made,
        clock=time.monotonic, jitter=random.random, progress=progress, metrics=metrics, log=log.get("dispatcher"),
    )  # fmt: skip
    return Work(changes, dispatcher.run_once)


def _joined(
    stack: ExitStack, settings: DispatcherSettings, group: str, topics: Sequence[str], progress: Progress
) -> tuple[Changes, Any]:
    """Join `group` as a member that reads `topics`, and create a producer of dead letters."""
    create_topics(settings.cluster, TOPICS)
    producer = _producer(settings, group)
    stack.callback(discard, producer)
    changes = change_consumer(
        settings.cluster, topics, group=group, instance=settings.instance, batch_max=settings.batch_max,
        progress=progress, log=log.get("dispatcher"), expiry_is_fault=group != REMOVALS_GROUP,
    )  # fmt: skip
    stack.callback(changes.close)
    return changes, producer


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Turn committed changes into relay messages. Settings come from the environment: docs/reference/settings.md."""
    settings = read_or_exit(DispatcherSettings)
    log.configure("dispatcher", level=settings.log_level, log_format=settings.log_format)
    sys.exit(run(settings, Shutdown().install()))


if __name__ == "__main__":
    main()
