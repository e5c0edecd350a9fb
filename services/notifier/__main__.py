"""The notifier's composition root: `python -m services.notifier`."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack

import click
from prometheus_client import REGISTRY

from services.notifier.channels import Channels
from services.notifier.metrics import NotifierMetrics
from services.notifier.notifier import Notifier
from services.notifier.settings import NotifierSettings
from services.notifier.tenants import Tenants
from tidings import kafka_loop, log
from tidings.kafka_changes import change_consumer
from tidings.kafka_loop import Work
from tidings.kafka_topics import KafkaTopics, create_topics
from tidings.kafka_transactions import Transactions, transactional_producer
from tidings.progress import Progress
from tidings.settings import read_or_exit
from tidings.shutdown import Shutdown
from tidings.topics import RESULTS, TOPICS

GROUP = "tidings-notifier"


def run(settings: NotifierSettings, shutdown: Shutdown) -> int:
    """Work until a signal; the exit status."""
    logger = log.get("notifier")
    metrics = NotifierMetrics(REGISTRY)
    progress = Progress(time.monotonic)
    # These outlive a connection: which topics refuse, and whose, is not to be learnt anew after each failure.
    topics = KafkaTopics(settings.cluster)
    channels = Channels(topics, channels_max=settings.channels_max, clock=time.monotonic)
    tenants = Tenants(time.monotonic)

    def connect(stack: ExitStack) -> Work:
        create_topics(settings.cluster, TOPICS)
        channels.look_again()
        # Before the consumer: what a producer of this name left open is ended when the committed offsets are read.
        transactions = Transactions(
            lambda: transactional_producer(settings.cluster, f"{GROUP}-{settings.instance}"),
            clock=time.monotonic,
            absent=topics.absent,
        )
        stack.callback(transactions.close)
        transactions.open()
        changes = change_consumer(
            settings.cluster, [RESULTS],
            group=GROUP, instance=settings.instance, batch_max=settings.batch_max, progress=progress, log=logger,
        )  # fmt: skip
        stack.callback(changes.close)
        notifier = Notifier(
            changes, transactions, channels, tenants,
            public_url=settings.public_url, progress=progress, metrics=metrics, log=logger,
        )  # fmt: skip
        return Work(changes, notifier.run_once)

    reader = kafka_loop.Reader("notifier", settings.instance, settings.cluster, settings.listen)
    return kafka_loop.run(reader, connect, shutdown=shutdown, progress=progress, log=logger)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Turn committed results into completion events. Settings come from the environment: docs/ARCHITECTURE.md."""
    settings = read_or_exit(NotifierSettings)
    log.configure("notifier", level=settings.log_level, log_format=settings.log_format)
    sys.exit(run(settings, Shutdown().install()))


if __name__ == "__main__":
    main()
