"""What the notifier does about a transaction that is refused or stalls, on a broker made by hand."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pytest
from kafka.errors import KafkaError, MessageSizeTooLargeError, TopicAuthorizationFailedError
from kafka.structs import TopicPartition
from prometheus_client import CollectorRegistry

from services.notifier.channels import STALLS_MAX, Channels
from services.notifier.metrics import NotifierMetrics
from services.notifier.notifier import Notifier
from services.notifier.tenants import Tenants
from tests.unit.clock import Clock
from tests.unit.test_events import ROW
from tidings import log
from tidings.kafka_failures import RefusedError, StalledError
from tidings.kafka_transactions import Outgoing
from tidings.progress import Progress
from tidings.topics import COMPLETIONS, DEAD_LETTERS, RESULTS, Topic

A, B = "tidings.completions.a", "tidings.completions.b"
Verdict = Callable[[Sequence[Outgoing]], None]


class Record:
    def __init__(self, offset: int, value: bytes) -> None:
        self.topic, self.partition, self.offset, self.key, self.value = RESULTS, 0, offset, b"key", value


class Broker:
    """Topics, one partition of changes, and transactions on which `verdict` may raise."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.committed: list[Outgoing] = []
        self.offset = 0
        self.verdict: Verdict = lambda _: None
        self.there: set[str] = set()
        self.attempts = 0

    def tell(self, channel: str | None = None, *, tenant: str = "default") -> str:
        row = ROW | {"submission_id": str(uuid.uuid4()), "channel": channel, "tenant": tenant}
        self.records.append(Record(len(self.records), json.dumps({"op": "c", "after": row}).encode()))
        return str(row["submission_id"])

    def poll(self, timeout_ms: int) -> Mapping[TopicPartition, Sequence[Record]]:
        assert timeout_ms > 0
        return {TopicPartition(RESULTS, 0): self.records[self.offset :]} if self.offset < len(self.records) else {}

    def group_metadata(self) -> str:
        return "group"

    def commit(self, messages: Sequence[Outgoing], offsets: Mapping[TopicPartition, Any], _group: str) -> None:
        self.attempts += 1
        self.verdict(messages)
        self.committed += messages
        [offset] = offsets.values()
        self.offset = offset.offset

    def present(self) -> Collection[str]:
        return self.there

    def make(self, topics: Collection[Topic]) -> Mapping[str, str]:
        self.there |= {topic.name for topic in topics}
        return {}

    def on(self, topic: str) -> list[str]:
        return [(message.key or b"").decode() for message in self.committed if message.topic == topic]


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def notifier(broker: Broker) -> Notifier:
    made: Any = broker
    return Notifier(
        made, made, Channels(broker, channels_max=10, clock=Clock()), Tenants(Clock()),
        public_url="http://x", progress=Progress(Clock()), metrics=NotifierMetrics(CollectorRegistry()),
        log=log.get("test"),
    )  # fmt: skip


def _raises(topic: str, error: Exception) -> Verdict:
    def verdict(messages: Sequence[Outgoing]) -> None:
        if any(message.topic == topic for message in messages):
            raise error

    return verdict


@pytest.mark.parametrize(
    "error",
    [RefusedError(A, TopicAuthorizationFailedError()), StalledError(frozenset({A}))],
    ids=["refuses", "hangs"],
)
def test_a_channel_that_takes_nothing_costs_one_more_transaction_and_no_other_event(
    broker: Broker, notifier: Notifier, error: Exception
) -> None:
    broker.verdict = _raises(A, error)
    broker.there = {A, B}
    ids = [broker.tell("a"), broker.tell("b"), broker.tell()]
    assert notifier.run_once() == 3
    assert (broker.on(COMPLETIONS), broker.on(B), broker.on(A)) == (ids, [ids[1]], [])
    assert broker.attempts == 2
    broker.tell("a")
    assert notifier.run_once() == 1
    assert broker.attempts == 3  # the topic is not tried again at once


def test_a_topic_that_was_just_made_may_hang_once(broker: Broker, notifier: Notifier) -> None:
    def once(messages: Sequence[Outgoing]) -> None:
        if broker.attempts == 1:
            raise StalledError(frozenset({A}))

    broker.verdict = once
    ids = [broker.tell("a"), broker.tell()]
    assert notifier.run_once() == 2
    assert (broker.on(COMPLETIONS), broker.on(A)) == (ids, ids[:1])


def test_a_stall_that_nothing_explains_is_the_brokers_until_it_comes_with_channels_alone(
    broker: Broker, notifier: Notifier
) -> None:
    broker.verdict = _raises(A, StalledError(frozenset()))
    ids = [broker.tell("a"), broker.tell()]
    assert notifier.run_once() == 2
    assert (broker.on(COMPLETIONS), broker.on(A)) == (ids, [])
    assert broker.attempts == STALLS_MAX + 1


def test_whoever_deletes_topics_again_and_again_is_left_out_with_all_channels_and_nobody_else(
    broker: Broker, notifier: Notifier
) -> None:
    """Under a new name each time, which no refusal of names would end."""
    deleting = ["", "x", "y", "z"]

    def deleted(messages: Sequence[Outgoing]) -> None:
        topic = f"tidings.completions.{deleting[0]}"
        if any(message.topic == topic for message in messages):
            deleting.pop(0)
            broker.there.discard(topic)
            raise StalledError(frozenset({topic}))

    broker.verdict = deleted
    deleting.pop(0)
    others = []
    for name, attempts in (("x", 2), ("y", 2), ("z", 1)):
        broker.tell(name, tenant="harmful")
        others.append(broker.tell("b", tenant="other"))
        before = broker.attempts
        assert notifier.run_once() == 2
        assert broker.attempts == before + attempts
    assert broker.on(B) == others
    assert len(broker.on(COMPLETIONS)) == 6
    # The first time the topic is made again, and has its event.
    assert [len(broker.on(f"tidings.completions.{name}")) for name in "xyz"] == [1, 0, 0]


def test_a_stall_without_channels_is_the_brokers(broker: Broker, notifier: Notifier) -> None:
    broker.verdict = _raises(COMPLETIONS, StalledError(frozenset({COMPLETIONS})))
    broker.tell("a")
    with pytest.raises(KafkaError):
        notifier.run_once()
    assert (broker.attempts, broker.offset) == (1, 0)


def test_a_stall_of_the_main_topic_is_blamed_on_no_channel(broker: Broker, notifier: Notifier) -> None:
    broker.there = {A}
    broker.verdict = _raises(COMPLETIONS, StalledError(frozenset({COMPLETIONS, A})))
    id_ = broker.tell("a")
    with pytest.raises(KafkaError):
        notifier.run_once()
    broker.verdict = lambda _: None
    notifier.run_once()
    assert broker.on(A) == [id_]


def test_an_event_too_large_for_the_main_topic_is_put_aside_alone(broker: Broker, notifier: Notifier) -> None:
    ids = [broker.tell(), broker.tell(), broker.tell()]

    def verdict(messages: Sequence[Outgoing]) -> None:
        if any(message.topic == COMPLETIONS and message.key == ids[1].encode() for message in messages):
            raise RefusedError(COMPLETIONS, MessageSizeTooLargeError())

    broker.verdict = verdict
    notifier.run_once()
    assert broker.on(COMPLETIONS) == [ids[0], ids[2]]
    [letter] = [message for message in broker.committed if message.topic == DEAD_LETTERS]
    assert letter.value == broker.records[1].value
    assert dict(letter.headers)["source"] == f"{RESULTS}/0/1".encode()
    assert broker.offset == 3


def test_a_letter_that_is_too_large_is_put_aside_without_its_value(broker: Broker, notifier: Notifier) -> None:
    def verdict(messages: Sequence[Outgoing]) -> None:
        for message in messages:
            if message.value:
                raise RefusedError(message.topic, MessageSizeTooLargeError())

    broker.verdict = verdict
    broker.tell()
    notifier.run_once()
    [letter] = broker.committed
    assert (letter.topic, letter.value, broker.offset) == (DEAD_LETTERS, b"", 1)


def test_a_main_topic_that_is_forbidden_puts_nothing_aside(broker: Broker, notifier: Notifier) -> None:
    broker.verdict = _raises(COMPLETIONS, RefusedError(COMPLETIONS, TopicAuthorizationFailedError()))
    broker.tell()
    with pytest.raises(KafkaError):
        notifier.run_once()
    assert (broker.committed, broker.offset) == ([], 0)


@pytest.mark.parametrize("value", [b'{"op": [], "after": []}', b'{"op": "c", "after": {"outcome": []}}'])
def test_whatever_a_change_holds_it_stops_no_other(broker: Broker, notifier: Notifier, value: bytes) -> None:
    broker.records.append(Record(0, value))
    id_ = broker.tell()
    notifier.run_once()
    assert (broker.on(COMPLETIONS), len(broker.on(DEAD_LETTERS)), broker.offset) == ([id_], 1, 2)
