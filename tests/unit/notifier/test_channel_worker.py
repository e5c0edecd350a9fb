"""Events that are held for their channel's topic, with a fake broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from kafka.errors import MessageSizeTooLargeError, NotControllerError
from prometheus_client import CollectorRegistry

from services.notifier.channel_state import ChannelState
from services.notifier.channel_worker import LOOK_SECONDS, NEW_MAX, TRIES_MAX, ChannelWorker, round_robin
from services.notifier.channels import ChannelUse
from services.notifier.connection import Connection
from services.notifier.metrics import NotifierMetrics
from tests.unit.clock import Clock
from tests.unit.notifier.broker import BATCH_MAX, Broker, refusing
from tidings.contract.topics import CHANNEL_EVENTS
from tidings.kafka.failures import RefusedError, StalledError
from tidings.kafka.topics import NOT_READY
from tidings.kafka.transactions import Outgoing
from tidings.process import log
from tidings.process.progress import Progress
from tidings.process.telemetry import Telemetry

A, B = "tidings.completions.a", "tidings.completions.b"


class Working:
    def __init__(self, channels_max: int = 1000, tenant_max: int = 1000) -> None:
        self.broker = Broker(CHANNEL_EVENTS, channels_max, tenant_max)
        self.registry = CollectorRegistry()
        made: Any = self.broker
        self.worker = ChannelWorker(
            Connection(made, made), ChannelState(self.broker.channels, self.broker.tenants),
            clock=self.broker.clock, progress=Progress(Clock()),
            telemetry=Telemetry(NotifierMetrics(self.registry), log.get("test")),
        )  # fmt: skip

    def run(self) -> int:
        """Run until no event is held; return the number of batches."""
        batches = 0
        while self.worker.run_once():
            batches += 1
            assert batches < 1000, "events are held again and again"
        return batches

    def main_topic_only(self) -> float:
        return self.registry.get_sample_value("tidings_notifier_channels_refused_total") or 0.0


@pytest.fixture
def working() -> Working:
    return Working()


def test_a_topic_is_created_and_gets_its_held_events(working: Working) -> None:
    ids = [working.broker.hold("a"), working.broker.hold("b"), working.broker.hold("a")]
    assert working.run() == 1
    assert (working.broker.on(A), working.broker.on(B)) == ([ids[0], ids[2]], [ids[1]])
    assert [sorted(names) for names in working.broker.made] == [[A, B]]
    assert all(list(message.headers) == [("ce_id", b"1")] for message in working.broker.committed)


def test_a_tenant_with_very_many_channels_delays_others_by_one_batch(working: Working) -> None:
    harmful = [working.broker.hold(f"x{number}", tenant="harmful") for number in range(BATCH_MAX - 1)]
    other = working.broker.hold("a", tenant="other")
    working.worker.run_once()
    assert working.broker.on(A) == [other]
    assert len(working.broker.made[0]) == NEW_MAX
    working.run()
    told = [key for number in range(BATCH_MAX - 1) for key in working.broker.on(f"tidings.completions.x{number}")]
    assert told == harmful


def test_a_topic_that_is_not_ready_is_waited_for_and_then_left_out(working: Working) -> None:
    working.broker.unmade = {A: NOT_READY}
    working.broker.hold("a")
    id_ = working.broker.hold("b")
    working.worker.run_once()
    assert working.broker.on(B) == [id_]
    assert working.run() == TRIES_MAX - 1
    assert (working.broker.on(A), working.main_topic_only()) == ([], 1)


def test_a_topic_that_is_ready_later_gets_its_event(working: Working) -> None:
    working.broker.unmade = {A: NOT_READY}
    id_ = working.broker.hold("a")
    working.worker.run_once()
    working.broker.unmade = {}
    working.run()
    assert (working.broker.on(A), working.main_topic_only()) == ([id_], 0)


def test_a_topic_that_may_not_be_created_delays_nothing(working: Working) -> None:
    working.broker.unmade = {A: "PolicyViolationError"}
    working.broker.hold("a")
    id_ = working.broker.hold("b")
    assert working.run() == 1
    assert (working.broker.on(B), working.main_topic_only()) == ([id_], 1)


def test_events_of_channels_beyond_the_limit_are_on_the_main_topic_alone() -> None:
    working = Working(channels_max=2)
    for number in range(5):
        working.broker.hold(f"x{number}")
    working.run()
    assert (len(working.broker.existing), working.main_topic_only()) == (2, 3)


def test_a_tenant_that_has_used_all_its_channels_does_not_reduce_those_of_another() -> None:
    working = Working(channels_max=10, tenant_max=3)
    harmful = [working.broker.hold(f"x{number}", tenant="harmful") for number in range(20)]
    other = working.broker.hold("a", tenant="other")
    working.run()
    late = working.broker.hold("b", tenant="other")
    again = working.broker.hold("x0", tenant="harmful")
    working.run()
    assert (working.broker.on(A), working.broker.on(B)) == ([other], [late])
    assert working.broker.on("tidings.completions.x0") == [harmful[0], again]
    assert (len(working.broker.existing), working.main_topic_only()) == (5, 17)
    assert working.broker.channels.reason_to_log(ChannelUse("x9", "harmful")) is None, "it was said"
    working.broker.clock.seconds += 60
    assert working.broker.channels.reason_to_log(ChannelUse("x9", "harmful")) == "too many channels of its tenant"


def test_topics_of_many_tenants_that_refuse_cost_no_other_tenant_an_event(working: Working) -> None:
    harmful = [f"x{number}" for number in range(30)]
    topics = [f"tidings.completions.{name}" for name in harmful]
    working.broker.has(*topics, A)
    working.broker.verdict = refusing(topics, MessageSizeTooLargeError)
    for name in harmful:
        working.broker.hold(name, tenant=name)
    id_ = working.broker.hold("a", tenant="other")
    working.run()
    assert working.broker.on(A) == [id_]
    assert [working.broker.on(topic) for topic in topics] == [[]] * 30


def test_of_two_tenants_of_one_topic_the_one_whose_record_is_refused_is_left_out(working: Working) -> None:
    large: set[bytes] = set()

    def verdict(messages: Sequence[Outgoing]) -> None:
        if any(message.topic == A and message.key in large for message in messages):
            raise RefusedError(A, MessageSizeTooLargeError())

    working.broker.has(A)
    working.broker.verdict = verdict
    large.add(working.broker.hold("a", tenant="harmful").encode())
    ids = [working.broker.hold("a", tenant="other") for _ in range(2)]
    working.run()
    assert working.broker.on(A) == ids
    working.broker.hold("a", tenant="harmful")
    ids.append(working.broker.hold("a", tenant="other"))
    working.run()
    assert working.broker.on(A) == ids


def test_a_topic_that_is_deleted_meanwhile_is_created_again(working: Working) -> None:
    def deleted(messages: Sequence[Outgoing]) -> None:
        if working.broker.attempts == 1:
            assert messages
            working.broker.existing.discard(A)
            raise StalledError(frozenset({A}))

    working.broker.has(A)
    working.broker.verdict = deleted
    id_ = working.broker.hold("a")
    working.run()
    assert (working.broker.on(A), working.broker.made) == ([id_], [[A]])


def test_a_topic_that_was_just_created_may_hang_once(working: Working) -> None:
    def once(messages: Sequence[Outgoing]) -> None:
        if working.broker.attempts == 1:
            assert messages
            raise StalledError(frozenset({A}))

    working.broker.verdict = once
    id_ = working.broker.hold("a")
    working.run()
    assert working.broker.on(A) == [id_]


def test_a_broker_that_is_down_loses_nothing(working: Working) -> None:
    id_ = working.broker.hold("a")
    working.broker.away = True
    with pytest.raises(NotControllerError):
        working.run()
    assert working.broker.offset == 0
    working.broker.away = False
    working.run()
    assert working.broker.on(A) == [id_]


def test_a_topic_that_another_process_created_is_known_after_some_time(working: Working) -> None:
    working.worker.run_once()
    working.broker.existing = {A}
    for _ in range(2):
        working.broker.clock.seconds += LOOK_SECONDS
        working.worker.run_once()
    id_ = working.broker.hold("a")
    working.run()
    assert (working.broker.on(A), working.broker.made) == ([id_], [])


def test_a_record_of_another_writer_is_skipped(working: Working) -> None:
    working.broker.add(b"by hand")
    id_ = working.broker.hold("a")
    working.run()
    assert (working.broker.on(A), working.broker.offset) == ([id_], 2)


def test_channels_are_processed_in_turn_of_their_tenants_and_once() -> None:
    assert round_robin([["a", "b", "c"], ["d"], ["b", "e"]], 4) == ["a", "d", "b", "e"]
    assert round_robin([], 4) == []
