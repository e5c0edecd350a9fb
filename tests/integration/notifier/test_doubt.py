"""Channels that are suspected after stalls that name no topic, on a real broker: each of their events is written once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.notifier.channel_state import ChannelState
from services.notifier.channel_worker import ChannelWorker
from services.notifier.channels import STALLS_MAX, Channels
from services.notifier.connection import Connection
from services.notifier.metrics import NotifierMetrics
from services.notifier.notifier import Notifier
from services.notifier.tenants import Tenants
from tests.integration.notifier.conftest import Topics
from tests.wait import until
from tidings.contract.topics import CHANNEL_EVENTS, COMPLETIONS, RESULTS, Topic
from tidings.kafka.changes import Subscription, change_consumer
from tidings.kafka.failures import StalledError
from tidings.kafka.topics import KafkaTopics
from tidings.kafka.transactions import Outgoing, Transactions, transactional_producer
from tidings.process import log
from tidings.process.progress import Progress
from tidings.process.telemetry import Telemetry

CHANNELS = 30
SECONDS = 120


class Stalling:
    """Real transactions, of which the first `stalls` with a record for a channel stall, and all with a record for a
    topic in `hanging`. No error names a topic. (A single broker accepts records whatever its topic's
    `min.insync.replicas` is.)
    """

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self.stalls = 0
        self.hanging: str | None = None

    def commit(self, messages: Sequence[Outgoing], offsets: Mapping[Any, Any], group: Any) -> None:
        if self.stalls and any(message.topic.startswith(f"{COMPLETIONS}.") for message in messages):
            self.stalls -= 1
            raise StalledError(frozenset())
        if self.hanging in {message.topic for message in messages}:
            raise StalledError(frozenset())
        self._transactions.commit(messages, offsets, group)


class Both:
    """Both loops of a notifier in this process, one batch at a time."""

    def __init__(self, topics: Topics, name: str, stack: ExitStack) -> None:
        self._topics, self._name, self._stack = topics, name, stack
        kafka_topics = KafkaTopics(topics.cluster)
        self.registry = CollectorRegistry()
        channels = Channels(kafka_topics, channels_max=10_000, tenant_max=10_000, clock=time.monotonic)
        state = ChannelState(channels, Tenants(time.monotonic))
        telemetry = Telemetry(NotifierMetrics(self.registry), log.get("test"))
        changes, transactions = self._joined(RESULTS)
        self.stalling = Stalling(transactions)
        held, held_transactions = self._joined(CHANNEL_EVENTS)
        self.trying = Stalling(held_transactions)
        made: Any = self.stalling
        trying: Any = self.trying
        notifier = Notifier(
            Connection(changes, made), state,
            public_url="http://x", progress=Progress(time.monotonic), telemetry=telemetry,
        )  # fmt: skip
        worker = ChannelWorker(
            Connection(held, trying), state,
            clock=time.monotonic, progress=Progress(time.monotonic), telemetry=telemetry,
        )  # fmt: skip
        self.loops = (notifier, worker)
        # The records of other tests are skipped before the channels' topics are checked.
        until(lambda: not [loop for loop in self.loops if loop.run_once()], SECONDS)
        channels.refresh()

    def _joined(self, topic: str) -> tuple[Any, Transactions]:
        name = f"{self._name}-{topic}"
        changes = change_consumer(
            self._topics.cluster, Subscription(name, name, 500, (topic,)),
            progress=Progress(time.monotonic), log=log.get("test"),
        )  # fmt: skip
        self._stack.callback(changes.close)
        transactions = Transactions(
            lambda: transactional_producer(self._topics.cluster, name),
            clock=time.monotonic, absent=KafkaTopics(self._topics.cluster).absent,
        )  # fmt: skip
        self._stack.callback(transactions.close)
        return changes, transactions

    def turn(self) -> None:
        for loop in self.loops:
            loop.run_once()

    def count(self, name: str) -> float:
        return self.registry.get_sample_value(f"tidings_notifier_channels_{name}_total") or 0.0


@pytest.fixture
def both(topics: Topics, instance: str) -> Iterator[Callable[[], Both]]:
    with ExitStack() as stack:
        yield lambda: Both(topics, instance, stack)


def _told(topics: Topics, channel: str) -> list[str]:
    return [message.key for message in topics.read(f"{COMPLETIONS}.{channel}")]


def test_events_of_suspected_channels_are_held_and_written_once(topics: Topics, both: Callable[[], Both]) -> None:
    names = [f"c-{uuid.uuid4().hex}" for _ in range(CHANNELS)]
    KafkaTopics(topics.cluster).make([Topic(f"{COMPLETIONS}.{name}") for name in names])
    notifier = both()
    notifier.stalling.stalls = STALLS_MAX
    ids = topics.changes(names)

    def told(all_ids: list[str]) -> bool:
        notifier.turn()
        return topics.completions(*all_ids) == sorted(all_ids)

    until(lambda: told(ids), SECONDS)
    assert notifier.count("held") >= 1
    after = topics.changes(names)
    until(lambda: told([*ids, *after]), SECONDS)
    expected = [sorted(pair) for pair in zip(ids, after, strict=True)]

    def channels(some: list[str]) -> list[list[str]]:
        notifier.turn()
        return [sorted(_told(topics, name)) for name in some]

    ends = slice(None, None, CHANNELS - 1)
    until(lambda: channels(names[ends]) == expected[ends], SECONDS)
    # The order of the other trials is not defined.
    until(lambda: channels(names) == expected, SECONDS)


def test_a_topic_that_accepts_nothing_is_refused_by_its_trials_and_the_others_get_their_events(
    topics: Topics, both: Callable[[], Both]
) -> None:
    hanging, healthy = (f"c-{uuid.uuid4().hex}" for _ in range(2))
    KafkaTopics(topics.cluster).make([Topic(f"{COMPLETIONS}.{name}") for name in (hanging, healthy)])
    notifier = both()
    notifier.stalling.stalls = STALLS_MAX
    notifier.trying.hanging = f"{COMPLETIONS}.{hanging}"
    [_, id_] = topics.changes([hanging, healthy])

    def settled() -> bool:
        notifier.turn()
        return notifier.count("refused") >= 1

    until(settled, SECONDS)
    until(lambda: _told(topics, healthy) == [id_], SECONDS)
    assert _told(topics, hanging) == []
