"""The notifier's reaction to a transaction that is refused or stalls, with a fake broker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from kafka.errors import KafkaError, MessageSizeTooLargeError, TopicAuthorizationFailedError
from prometheus_client import CollectorRegistry

from services.notifier.channel_failures import FAILURES_MAX
from services.notifier.channel_state import ChannelState
from services.notifier.channels import STALLS_MAX
from services.notifier.connection import Connection
from services.notifier.metrics import NotifierMetrics
from services.notifier.notifier import Notifier
from tests.unit.clock import Clock
from tests.unit.notifier.broker import Broker, Verdict, refusing
from tidings.contract.topics import CHANNEL_EVENTS, COMPLETIONS, DEAD_LETTERS, RESULTS
from tidings.kafka.failures import RefusedError, StalledError
from tidings.kafka.transactions import Outgoing
from tidings.process import log
from tidings.process.progress import Progress
from tidings.process.telemetry import Telemetry

A, B = "tidings.completions.a", "tidings.completions.b"


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def notifier(broker: Broker) -> Notifier:
    made: Any = broker
    return Notifier(
        Connection(made, made), ChannelState(broker.channels, broker.tenants),
        public_url="http://x", progress=Progress(Clock()),
        telemetry=Telemetry(NotifierMetrics(CollectorRegistry()), log.get("test")),
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
def test_a_channel_that_accepts_nothing_costs_one_more_transaction_and_no_other_event(
    broker: Broker, notifier: Notifier, error: Exception
) -> None:
    broker.verdict = _raises(A, error)
    broker.has(A, B)
    ids = [broker.tell("a"), broker.tell("b"), broker.tell()]
    assert notifier.run_once() == 3
    assert (broker.on(COMPLETIONS), broker.on(B), broker.on(A)) == (ids, [ids[1]], [])
    assert broker.attempts == 2
    broker.tell("a")
    assert notifier.run_once() == 1
    assert broker.attempts == 3  # the topic is not tried again at once


@pytest.mark.parametrize("error", [MessageSizeTooLargeError, TopicAuthorizationFailedError])
def test_many_topics_of_one_tenant_that_refuse_cost_no_other_tenant_an_event(
    broker: Broker, notifier: Notifier, error: Callable[[], Exception]
) -> None:
    harmful = [f"x{number}" for number in range(30)]
    topics = {f"{COMPLETIONS}.{name}" for name in harmful}
    broker.has(*topics, A, B)
    broker.verdict = refusing(topics, error)
    ids = [broker.tell(name, tenant="harmful") for name in harmful]
    others = [broker.tell("a", tenant="other"), broker.tell("b", tenant="another"), broker.tell()]
    notifier.run_once()
    assert (broker.on(COMPLETIONS), broker.on(A), broker.on(B)) == (ids + others, others[:1], others[1:2])
    assert broker.attempts == 3  # the second refusal leaves the tenant out


def test_topics_of_many_tenants_that_refuse_cost_no_other_tenant_an_event(broker: Broker, notifier: Notifier) -> None:
    harmful = [f"x{number}" for number in range(2 * FAILURES_MAX)]
    topics = {f"{COMPLETIONS}.{name}" for name in harmful}
    broker.has(*topics, A)
    broker.verdict = refusing(topics, MessageSizeTooLargeError)
    ids = [broker.tell(name, tenant=name) for name in harmful]
    other = broker.tell("a", tenant="other")
    notifier.run_once()
    assert (broker.on(COMPLETIONS), broker.on(A)) == ([*ids, other], [])
    assert other in broker.on(CHANNEL_EVENTS)  # where it is tried alone
    assert broker.attempts == FAILURES_MAX + 1


def test_a_refused_record_in_a_topic_of_two_tenants_is_attributed_to_neither(
    broker: Broker, notifier: Notifier
) -> None:
    broker.has(A, B)
    broker.verdict = refusing([A], MessageSizeTooLargeError)
    ids = [broker.tell("a", tenant="harmful"), broker.tell("a", tenant="other"), broker.tell("b", tenant="other")]
    notifier.run_once()
    assert (broker.on(COMPLETIONS), broker.on(B)) == (ids, ids[2:])
    assert broker.on(CHANNEL_EVENTS) == ids[:2]


def test_an_event_without_a_topic_is_held_and_no_topic_is_created(broker: Broker, notifier: Notifier) -> None:
    ids = [broker.tell("a"), broker.tell()]
    notifier.run_once()
    assert (broker.on(COMPLETIONS), broker.on(CHANNEL_EVENTS), broker.existing) == (ids, ids[:1], set())
    [held] = [message for message in broker.committed if message.topic == CHANNEL_EVENTS]
    [told] = [message for message in broker.committed if message.topic == COMPLETIONS and message.key == held.key]
    assert (held.value, list(held.headers)[: len(told.headers)]) == (told.value, list(told.headers))


@pytest.mark.parametrize("error", [MessageSizeTooLargeError, TopicAuthorizationFailedError])
def test_the_topic_of_held_events_delays_no_completion(
    broker: Broker, notifier: Notifier, error: Callable[[], Exception]
) -> None:
    broker.verdict = refusing([CHANNEL_EVENTS], error)
    ids = [broker.tell("a"), broker.tell()]
    notifier.run_once()
    assert (broker.on(COMPLETIONS), broker.on(CHANNEL_EVENTS), broker.on(DEAD_LETTERS)) == (ids, [], [])


def test_an_unexplained_stall_is_attributed_to_the_broker_until_it_occurs_with_channels_alone(
    broker: Broker, notifier: Notifier
) -> None:
    broker.has(A)
    broker.verdict = _raises(A, StalledError(frozenset()))
    ids = [broker.tell("a"), broker.tell()]
    assert notifier.run_once() == 2
    assert (broker.on(COMPLETIONS), broker.on(A)) == (ids, [])
    assert broker.attempts == STALLS_MAX + 1


def test_a_tenant_that_deletes_topics_repeatedly_is_left_out_with_all_channels_and_no_other_is(
    broker: Broker, notifier: Notifier
) -> None:
    """Each time under a new name, which the refusal of single names would not end."""
    deleting = ["", "x", "y", "z"]

    def deleted(messages: Sequence[Outgoing]) -> None:
        topic = f"tidings.completions.{deleting[0]}"
        if any(message.topic == topic for message in messages):
            deleting.pop(0)
            broker.existing.discard(topic)
            raise StalledError(frozenset({topic}))

    broker.verdict = deleted
    deleting.pop(0)
    broker.has(B, *(f"tidings.completions.{name}" for name in "xyz"))
    others = []
    for name, attempts in (("x", 2), ("y", 2), ("z", 1)):
        broker.tell(name, tenant="harmful")
        others.append(broker.tell("b", tenant="other"))
        before = broker.attempts
        assert notifier.run_once() == 2
        assert broker.attempts == before + attempts
    assert broker.on(B) == others
    assert len(broker.on(COMPLETIONS)) == 6
    # The first time the event is held until the topic is created again.
    assert len(broker.on(CHANNEL_EVENTS)) == 1
    assert [len(broker.on(f"tidings.completions.{name}")) for name in "xyz"] == [0, 0, 0]


def test_a_topic_that_several_tenants_share_leaves_out_none(broker: Broker, notifier: Notifier) -> None:
    hanging: list[str] = []

    def verdict(messages: Sequence[Outgoing]) -> None:
        if found := {message.topic for message in messages} & set(hanging):
            raise StalledError(frozenset(found))

    broker.verdict = verdict
    broker.has(A, B)
    for name in "ab":
        hanging.append(f"{COMPLETIONS}.{name}")
        broker.tell(name, tenant="one")
        broker.tell(name, tenant="another")
        notifier.run_once()
    assert not [tenant for tenant in ("one", "another") if broker.tenants.excluded(tenant)]


def test_a_stall_without_channels_is_attributed_to_the_broker(broker: Broker, notifier: Notifier) -> None:
    broker.verdict = _raises(COMPLETIONS, StalledError(frozenset({COMPLETIONS})))
    broker.tell("a")
    with pytest.raises(KafkaError):
        notifier.run_once()
    assert (broker.attempts, broker.offset) == (1, 0)


def test_a_stall_of_the_main_topic_is_attributed_to_no_channel(broker: Broker, notifier: Notifier) -> None:
    broker.has(A)
    broker.verdict = _raises(COMPLETIONS, StalledError(frozenset({COMPLETIONS, A})))
    id_ = broker.tell("a")
    with pytest.raises(KafkaError):
        notifier.run_once()
    broker.verdict = lambda _: None
    notifier.run_once()
    assert broker.on(A) == [id_]


def test_an_event_too_large_for_the_main_topic_is_the_only_dead_letter(broker: Broker, notifier: Notifier) -> None:
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


def test_a_dead_letter_that_is_too_large_is_written_without_its_value(broker: Broker, notifier: Notifier) -> None:
    def verdict(messages: Sequence[Outgoing]) -> None:
        for message in messages:
            if message.value:
                raise RefusedError(message.topic, MessageSizeTooLargeError())

    broker.verdict = verdict
    broker.tell()
    notifier.run_once()
    [letter] = broker.committed
    assert (letter.topic, letter.value, broker.offset) == (DEAD_LETTERS, b"", 1)


def test_a_main_topic_without_the_right_to_write_makes_no_dead_letter(broker: Broker, notifier: Notifier) -> None:
    broker.verdict = _raises(COMPLETIONS, RefusedError(COMPLETIONS, TopicAuthorizationFailedError()))
    broker.tell()
    with pytest.raises(KafkaError):
        notifier.run_once()
    assert (broker.committed, broker.offset) == ([], 0)


@pytest.mark.parametrize("value", [b'{"op": [], "after": []}', b'{"op": "c", "after": {"outcome": []}}'])
def test_no_content_of_a_change_stops_another(broker: Broker, notifier: Notifier, value: bytes) -> None:
    broker.add(value)
    id_ = broker.tell()
    notifier.run_once()
    assert (broker.on(COMPLETIONS), len(broker.on(DEAD_LETTERS)), broker.offset) == ([id_], 1, 2)
