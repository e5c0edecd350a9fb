"""The composition root of the notifier: `python -m services.notifier`."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack

import click
from prometheus_client import REGISTRY

from services.notifier.channel_state import ChannelState
from services.notifier.channel_worker import ChannelWorker
from services.notifier.channels import Channels
from services.notifier.connection import Connection
from services.notifier.metrics import NotifierMetrics
from services.notifier.notifier import Notifier
from services.notifier.settings import NotifierSettings
from services.notifier.tenants import Tenants
from tidings.contract.topics import CHANNEL_EVENTS, RESULTS, TOPICS
from tidings.kafka import loop
from tidings.kafka.changes import Subscription, change_consumer
from tidings.kafka.loop import Work
from tidings.kafka.topics import KafkaTopics, create_topics
from tidings.kafka.transactions import Transactions, transactional_producer
from tidings.process import log
from tidings.process.progress import Progress
from tidings.process.settings import read_or_exit
from tidings.process.shutdown import Shutdown
from tidings.process.telemetry import Telemetry

GROUP = "tidings-notifier"
CHANNELS_GROUP = "tidings-channels"


def run(settings: NotifierSettings, shutdown: Shutdown) -> int:
    """Run until a signal; return the exit status."""
    logger = log.get("notifier")
    telemetry = Telemetry(NotifierMetrics(REGISTRY), logger)
    topics = KafkaTopics(settings.cluster)
    channels = Channels(
        topics, channels_max=settings.channels_max, tenant_max=settings.tenant_channels_max, clock=time.monotonic
    )
    state = ChannelState(channels, Tenants(time.monotonic))
    completions, channel_events = Progress(time.monotonic), Progress(time.monotonic)

    def connect(stack: ExitStack) -> Work:
        create_topics(settings.cluster, TOPICS)
        channels.refresh()
        connection = _connection(stack, settings, GROUP, RESULTS, completions)
        notifier = Notifier(
            connection, state, public_url=settings.public_url, progress=completions, telemetry=telemetry
        )
        return Work(connection.changes, notifier.run_once)

    def connect_channels(stack: ExitStack) -> Work:
        create_topics(settings.cluster, TOPICS)
        connection = _connection(stack, settings, CHANNELS_GROUP, CHANNEL_EVENTS, channel_events)
        worker = ChannelWorker(connection, state, clock=time.monotonic, progress=channel_events, telemetry=telemetry)
        return Work(connection.changes, worker.run_once)

    reader = loop.Reader("notifier", settings.instance, settings.cluster, settings.listen)
    main = loop.Part(connect, completions)
    return loop.run(
        reader, main, loop.Part(connect_channels, channel_events, "channels"), shutdown=shutdown, log=logger
    )


def _connection(stack: ExitStack, settings: NotifierSettings, group: str, topic: str, progress: Progress) -> Connection:
    """Join `group` as a member that reads `topic`, and open its transactions."""
    # Before the consumer: the broker first ends the open transaction of an earlier producer of this name, and the
    # committed offsets are read afterwards.
    transactions = Transactions(
        lambda: transactional_producer(settings.cluster, f"{group}-{settings.instance}"),
        clock=time.monotonic,
        absent=KafkaTopics(settings.cluster).absent,
    )
    stack.callback(transactions.close)
    transactions.open()
    subscription = Subscription(group, settings.instance, settings.batch_max, (topic,))
    changes = change_consumer(settings.cluster, subscription, progress=progress, log=log.get("notifier"))
    stack.callback(changes.close)
    return Connection(changes, transactions)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Turn committed results into completion events. Settings come from the environment: docs/reference/settings.md."""
    settings = read_or_exit(NotifierSettings)
    log.configure("notifier", level=settings.log_level, log_format=settings.log_format)
    sys.exit(run(settings, Shutdown().install()))


if __name__ == "__main__":
    main()
