"""The composition root of the notifier: `python -m services.notifier`."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack

import click
from prometheus_client import REGISTRY

from services.notifier.channel_worker import ChannelWorker
from services.notifier.channels import Channels
from services.notifier.metrics import NotifierMetrics
from services.notifier.notifier import Notifier
from services.notifier.settings import NotifierSettings
from services.notifier.tenants import Tenants
from tidings.contract.topics import CHANNEL_EVENTS, RESULTS, TOPICS
from tidings.kafka import loop
from tidings.kafka.changes import Changes, change_consumer
from tidings.kafka.loop import Work
from tidings.kafka.topics import KafkaTopics, create_topics
from tidings.kafka.transactions import Transactions, transactional_producer
from tidings.process import log
from tidings.process.progress import Progress
from tidings.process.settings import read_or_exit
from tidings.process.shutdown import Shutdown

GROUP = "tidings-notifier"
CHANNELS_GROUP = "tidings-channels"


def run(settings: NotifierSettings, shutdown: Shutdown) -> int:
    """Run until a signal; return the exit status."""
    logger = log.get("notifier")
    metrics = NotifierMetrics(REGISTRY)
    # These objects outlive a connection, so that a failure does not discard which topics refuse events, and of which
    # tenants.
    topics = KafkaTopics(settings.cluster)
    channels = Channels(
        topics, channels_max=settings.channels_max, tenant_max=settings.tenant_channels_max, clock=time.monotonic
    )
    tenants = Tenants(time.monotonic)
    completing, channelling = Progress(time.monotonic), Progress(time.monotonic)

    def connect(stack: ExitStack) -> Work:
        create_topics(settings.cluster, TOPICS)
        channels.look_again()
        changes, transactions = _joined(stack, settings, GROUP, RESULTS, completing)
        notifier = Notifier(
            changes, transactions, channels, tenants,
            public_url=settings.public_url, progress=completing, metrics=metrics, log=logger,
        )  # fmt: skip
        return Work(changes, notifier.run_once)

    def connect_channels(stack: ExitStack) -> Work:
        create_topics(settings.cluster, TOPICS)
        changes, transactions = _joined(stack, settings, CHANNELS_GROUP, CHANNEL_EVENTS, channelling)
        worker = ChannelWorker(
            changes, transactions, channels, tenants,
            clock=time.monotonic, progress=channelling, metrics=metrics, log=logger,
        )  # fmt: skip
        return Work(changes, worker.run_once)

    reader = loop.Reader("notifier", settings.instance, settings.cluster, settings.listen)
    beside = loop.Beside("channels", connect_channels, channelling)
    return loop.run(reader, connect, shutdown=shutdown, progress=completing, log=logger, beside=beside)


def _joined(
    stack: ExitStack, settings: NotifierSettings, group: str, topic: str, progress: Progress
) -> tuple[Changes, Transactions]:
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
    changes = change_consumer(
        settings.cluster, [topic],
        group=group, instance=settings.instance, batch_max=settings.batch_max, progress=progress,
        log=log.get("notifier"),
    )  # fmt: skip
    stack.callback(changes.close)
    return changes, transactions


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Turn committed results into completion events. Settings come from the environment: docs/reference/settings.md."""
    settings = read_or_exit(NotifierSettings)
    log.configure("notifier", level=settings.log_level, log_format=settings.log_format)
    sys.exit(run(settings, Shutdown().install()))


if __name__ == "__main__":
    main()
