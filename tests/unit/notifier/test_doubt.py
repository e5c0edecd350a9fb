"""Topics in doubt, with a fake broker: their events are held, and each topic is tried alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest
from kafka.errors import KafkaError, MessageSizeTooLargeError
from prometheus_client import CollectorRegistry

from services.notifier.channel_state import ChannelState
from services.notifier.channel_worker import TRIALS_MAX
from services.notifier.channels import STALLS_MAX
from services.notifier.connection import Connection
from services.notifier.metrics import NotifierMetrics
from services.notifier.notifier import Notifier
from services.notifier.refusals import REFUSED_SECONDS, TRIAL_SECONDS
from tests.unit.clock import Clock
from tests.unit.notifier.broker import BATCH_MAX, Broker, Verdict, refusing
from tests.unit.notifier.test_channel_worker import Working
from tidings.contract.topics import CHANNEL_EVENTS, COMPLETIONS
from tidings.kafka.failures import StalledError
from tidings.kafka.transactions import Outgoing
from tidings.process import log
from tidings.process.progress import Progress
from tidings.process.telemetry import Telemetry

A, B = "tidings.completions.a", "tidings.completions.b"
NAMES = [f"c{number}" for number in range(30)]
TOPICS = [f"{COMPLETIONS}.{name}" for name in NAMES]


def _hanging(topics: Collection[str]) -> Verdict:
    """A transaction with a record for one of `topics` stalls, and the broker does not name the topic."""

    def verdict(messages: Sequence[Outgoing]) -> None:
        if any(message.topic in topics for message in messages):
            raise StalledError(frozenset())

    return verdict


def _suspected(working: Working, names: Sequence[str]) -> None:
    topics = [f"{COMPLETIONS}.{name}" for name in names]
    working.broker.has(*topics)
    for _ in range(STALLS_MAX):
        working.broker.channels.suspects(topics)


@pytest.fixture
def working() -> Working:
    return Working()


def test_after_stalls_that_name_no_topic_every_channels_event_is_held() -> None:
    broker = Broker()
    made: Any = broker
    notifier = Notifier(
        Connection(made, made), ChannelState(broker.channels, broker.tenants),
        public_url="http://x", progress=Progress(Clock()),
        telemetry=Telemetry(NotifierMetrics(CollectorRegistry()), log.get("test")),
    )  # fmt: skip

    def outage(_: Sequence[Outgoing]) -> None:
        if broker.attempts <= STALLS_MAX:
            raise StalledError(frozenset())

    broker.has(*TOPICS)
    broker.verdict = outage
    ids = [broker.tell(name, tenant=name) for name in NAMES]
    notifier.run_once()
    assert (broker.on(COMPLETIONS), broker.on(CHANNEL_EVENTS)) == (ids, ids)
    for _ in range(10):
        broker.clock.seconds += 10
        ids += [broker.tell(name, tenant=name) for name in NAMES]
        notifier.run_once()
    assert (broker.on(COMPLETIONS), broker.on(CHANNEL_EVENTS)) == (ids, ids)
    assert not [name for name in NAMES if broker.tenants.excluded(name)]


def test_many_topics_in_doubt_are_each_tried_alone_and_get_their_events_at_once(working: Working) -> None:
    _suspected(working, NAMES)
    ids = {name: [working.broker.hold(name, tenant=name)] for name in NAMES}
    for name in NAMES:
        ids[name].append(working.broker.hold(name, tenant=name))
    alone: list[set[str]] = []
    working.broker.verdict = lambda messages: alone.append({message.topic for message in messages})
    assert working.run() == 1
    assert {name: working.broker.on(f"{COMPLETIONS}.{name}") for name in NAMES} == ids
    assert alone == [{topic} for topic in TOPICS] + [set(TOPICS)]
    assert working.main_topic_only() == 0


def test_a_topic_that_hangs_alone_is_refused_and_the_others_get_their_events(working: Working) -> None:
    _suspected(working, NAMES)
    working.broker.verdict = _hanging(TOPICS[:1])
    ids = [working.broker.hold(name, tenant=name) for name in NAMES]
    working.run()
    assert [working.broker.on(topic) for topic in TOPICS] == [[], *([id_] for id_ in ids[1:])]
    assert working.main_topic_only() == 1
    working.broker.hold(NAMES[0], tenant=NAMES[0])
    before = working.broker.attempts
    working.run()
    assert working.broker.attempts == before + 1, "what was proven is not tried at once"


def test_one_batch_waits_for_at_most_one_hanging_trial_and_a_limited_number_of_trials(working: Working) -> None:
    _suspected(working, NAMES)
    stalled: list[str] = []

    def verdict(messages: Sequence[Outgoing]) -> None:
        if found := {message.topic for message in messages} & set(TOPICS):
            stalled.extend(found)
            raise StalledError(frozenset())

    working.broker.verdict = verdict
    for name in NAMES:
        working.broker.hold(name, tenant=name)
    other = working.broker.hold("new", tenant="other")
    working.worker.run_once()
    assert (len(stalled), working.broker.on(f"{COMPLETIONS}.new")) == (1, [other])
    working.run()
    assert working.main_topic_only() == len(NAMES)

    many = Working()
    names = [f"m{number}" for number in range(TRIALS_MAX + 1)]
    assert len(names) < BATCH_MAX
    _suspected(many, names)
    for name in names:
        many.broker.hold(name, tenant=name)
    many.worker.run_once()
    told = [name for name in names if many.broker.on(f"{COMPLETIONS}.{name}")]
    assert told == names[:TRIALS_MAX]
    many.run()
    assert [len(many.broker.on(f"{COMPLETIONS}.{name}")) for name in names] == [1] * len(names)


def test_a_broker_that_accepts_nothing_proves_nothing_about_a_topic(working: Working) -> None:
    _suspected(working, NAMES)
    working.broker.verdict = _hanging([*TOPICS, CHANNEL_EVENTS])
    ids = [working.broker.hold(name, tenant=name) for name in NAMES]
    for _ in range(5):
        with pytest.raises(KafkaError):
            working.run()
    assert working.broker.offset == 0
    working.broker.verdict = lambda _: None
    working.run()
    assert [working.broker.on(topic) for topic in TOPICS] == [[id_] for id_ in ids]


def test_a_refused_topic_is_tried_with_the_first_event_after_its_time(working: Working) -> None:
    working.broker.has(A)
    working.broker.channels.refuse(A, "too large")
    working.broker.clock.seconds += REFUSED_SECONDS
    id_ = working.broker.hold("a")
    assert working.run() == 1
    assert working.broker.on(A) == [id_]


def test_one_topic_a_minute_is_tried_while_they_refuse_and_all_once_one_recovers(working: Working) -> None:
    working.broker.has(*TOPICS)
    for topic in TOPICS:
        working.broker.channels.refuse(topic, "too large")
    working.broker.verdict = refusing(TOPICS, MessageSizeTooLargeError)
    working.broker.clock.seconds += REFUSED_SECONDS
    before = working.broker.attempts
    for name in NAMES:
        working.broker.hold(name, tenant=name)
    working.run()
    assert working.broker.attempts == before + 3
    working.broker.verdict = lambda _: None
    working.broker.clock.seconds += TRIAL_SECONDS
    ids = [working.broker.hold(name, tenant=name) for name in NAMES]
    working.run()
    # The first is left out for longer, as it refused again.
    assert [working.broker.on(topic) for topic in TOPICS[1:]] == [[id_] for id_ in ids[1:]]


def test_a_topic_in_doubt_that_is_deleted_is_created_again(working: Working) -> None:
    _suspected(working, ["a"])

    def deleted(messages: Sequence[Outgoing]) -> None:
        if working.broker.attempts == 1:
            assert messages
            working.broker.existing.discard(A)
            raise StalledError(frozenset({A}))

    working.broker.verdict = deleted
    id_ = working.broker.hold("a")
    working.run()
    assert (working.broker.on(A), working.broker.made) == ([id_], [[A]])
