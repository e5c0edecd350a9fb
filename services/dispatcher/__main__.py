"""The composition root of the dispatcher: `python -m services.dispatcher`."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import click
from kafka import KafkaProducer
from prometheus_client import REGISTRY
from structlog.stdlib import BoundLogger

from services.dispatcher.api_client import ApiClient
from services.dispatcher.dispatcher import Connection, Dispatcher
from services.dispatcher.message import Callbacks, MessageBuilder, Webhooks
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.relay_client import RelayClient
from services.dispatcher.sender import Sender
from services.dispatcher.settings import DispatcherSettings
from services.dispatcher.timing import Timing
from tidings.contract.targets import Disabled, Resolved, load_targets, resolve
from tidings.contract.topics import REMOVALS, RESULTS, SUBMISSIONS, TOPICS
from tidings.kafka import loop
from tidings.kafka.changes import Subscription, change_consumer
from tidings.kafka.loop import Work
from tidings.kafka.topics import BOOTSTRAP_TIMEOUT_MS, REQUEST_TIMEOUT_MS, create_topics
from tidings.kafka.transactions import discard
from tidings.process import log
from tidings.process.progress import Progress
from tidings.process.settings import EXIT_CONFIGURATION, ConfigurationError, environment, read_or_exit
from tidings.process.shutdown import Shutdown
from tidings.process.telemetry import Telemetry

GROUP = "tidings-dispatcher"
REMOVALS_GROUP = "tidings-removals"
TIMING = Timing(time.time, time.monotonic, random.random)


def _targets(settings: DispatcherSettings, logger: BoundLogger) -> Mapping[str, Resolved | Disabled]:
    resolved = {name: resolve(target, environment()) for name, target in load_targets(settings.targets_file).items()}
    for target in resolved.values():
        if isinstance(target, Disabled):
            logger.warning("target_disabled", reason=target.reason)
    return resolved


def make_sender(
    settings: DispatcherSettings,
    targets: Mapping[str, Resolved | Disabled],
    telemetry: Telemetry[DispatcherMetrics],
) -> Sender:
    """Build the sender, which sends and cancels messages, from the settings."""
    callback_url = settings.callback_url or settings.public_url
    internal_token = settings.internal_token.get_secret_value()
    webhooks = Webhooks(
        settings.public_url,
        settings.webhook_secret.get_secret_value() if settings.webhook_secret else None,
        public_only=settings.webhook_addresses == "public",
    )
    return Sender(
        RelayClient(settings.relay_url, settings.relay_token.get_secret_value()),
        ApiClient(
            settings.api_url,
            callback_url,
            internal_token=internal_token,
            signing_key=settings.signing_key.get_secret_value(),
            now=time.time,
        ),
        MessageBuilder(targets, Callbacks(callback_url, internal_token, settings.callback_retries), webhooks),
        timing=TIMING,
        telemetry=telemetry,
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

    def part(name: str, subscription: Subscription, metrics: DispatcherMetrics) -> loop.Part:
        telemetry, progress = Telemetry(metrics, logger), Progress(time.monotonic)
        # Each loop has its own connections to the relay.
        sender = make_sender(settings, targets, telemetry)

        def connect(stack: ExitStack) -> Work:
            connection = _connection(stack, settings, subscription, progress)
            made = Dispatcher(connection, sender, timing=TIMING, progress=progress, telemetry=telemetry)
            return Work(connection.consumer, made.run_once)

        return loop.Part(connect, progress, name)

    reader = loop.Reader("dispatcher", settings.instance, settings.cluster, settings.listen)
    member = settings.instance, settings.batch_max
    calls = part("", Subscription(GROUP, *member, (SUBMISSIONS, RESULTS)), metrics)
    # A separate loop: any number of removals, each of which may take the relay long, must not delay a call.
    reading = Subscription(REMOVALS_GROUP, *member, (REMOVALS,), expiry_is_fault=False)
    removals = part("removals", reading, removals_metrics)
    return loop.run(reader, calls, removals, shutdown=shutdown, log=logger)


def _connection(
    stack: ExitStack, settings: DispatcherSettings, subscription: Subscription, progress: Progress
) -> Connection:
    """Join the group of `subscription`, and create a producer of dead letters."""
    create_topics(settings.cluster, TOPICS)
    producer = _producer(settings, subscription.group)
    stack.callback(discard, producer)
    changes = change_consumer(settings.cluster, subscription, progress=progress, log=log.get("dispatcher"))
    stack.callback(changes.close)
    return Connection(changes, producer)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Turn committed changes into relay messages. Settings come from the environment: docs/reference/settings.md."""
    settings = read_or_exit(DispatcherSettings)
    log.configure("dispatcher", level=settings.log_level, log_format=settings.log_format)
    sys.exit(run(settings, Shutdown().install()))


if __name__ == "__main__":
    main()
