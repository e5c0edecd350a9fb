"""The channels' topics: which are created, refused, and tried again."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest
from kafka.errors import KafkaError, NotControllerError

from services.notifier.channels import SETTLED_SECONDS, STALLS_MAX, Channels, ChannelUse
from services.notifier.refusals import REFUSED_SECONDS, TRIAL_SECONDS, TRIALS_STALLED_MAX
from tests.unit.clock import Clock
from tidings.contract.topics import Topic

A, B, C = (f"tidings.completions.{name}" for name in "abc")


class Broker:
    def __init__(self, *errors: KafkaError, forbidden: Collection[str] = ()) -> None:
        self.existing: set[str] = set()
        self.made: list[list[str]] = []
        self.forbidden = set(forbidden)
        self._errors = list(errors)

    def present(self) -> set[str]:
        return set(self.existing)

    def make(self, topics: Collection[Topic]) -> Mapping[str, str]:
        if self._errors:
            raise self._errors.pop(0)
        names = [topic.name for topic in topics]
        self.made.append(names)
        self.existing |= set(names) - self.forbidden
        return {name: "PolicyViolationError" for name in names if name in self.forbidden}


def _channels(broker: Broker, clock: Clock | None = None, channels_max: int = 10) -> Channels:
    return Channels(broker, channels_max=channels_max, tenant_max=channels_max, clock=clock or Clock())


def uses(*channels: str, tenant: str = "t") -> list[ChannelUse]:
    return [ChannelUse(channel, tenant) for channel in channels]


def found(channels: Channels, *names: str, tenant: str = "t") -> dict[str, str]:
    return {use.channel: topic for use, topic in channels.routes(uses(*names, tenant=tenant)).topics.items()}


def doubted(channels: Channels, *names: str) -> set[str]:
    return {use.channel for use in channels.routes(uses(*names)).doubted}


def held(channels: Channels, *names: str) -> set[str]:
    return {use.channel for use in channels.routes(uses(*names)).held}


def test_events_are_held_until_their_topic_is_created() -> None:
    broker = Broker()
    channels = _channels(broker)
    assert (found(channels, "a"), held(channels, "a"), broker.made) == ({}, {"a"}, [])
    assert channels.make(uses("a")) == set()
    assert (found(channels, "a"), held(channels, "a")) == ({"a": A}, set())
    channels.make(uses("a"))
    assert broker.made == [[A]]


def test_new_topics_are_created_in_one_request() -> None:
    broker = Broker()
    channels = _channels(broker)
    channels.make(uses("a", "b", "c"))
    assert found(channels, "a", "b", "c") == {"a": A, "b": B, "c": C}
    assert [sorted(names) for names in broker.made] == [[A, B, C]]


def test_no_more_topics_are_created_than_the_limit() -> None:
    broker = Broker()
    channels = _channels(broker, channels_max=2)
    channels.make(uses("a", "b", "c"))
    assert len(broker.existing) == len(found(channels, "a", "b", "c")) == 2
    assert held(channels, "a", "b", "c") == set()
    assert channels.reason_to_log(ChannelUse("c", "t")) == "too many channels"


def test_a_channel_that_the_broker_forbids_delays_no_other() -> None:
    clock = Clock()
    broker = Broker(forbidden=[A])
    channels = _channels(broker, clock)
    channels.make(uses("a", "b"))
    assert (found(channels, "a", "b"), held(channels, "a", "b")) == ({"b": B}, set())
    assert channels.reason_to_log(ChannelUse("a", "t")) == "PolicyViolationError"
    clock.seconds += REFUSED_SECONDS
    assert held(channels, "a") == {"a"}
    broker.forbidden.clear()
    channels.make(uses("a"))
    assert found(channels, "a") == {"a": A}


def test_a_broker_that_is_down_is_retried() -> None:
    channels = _channels(Broker(NotControllerError()))
    with pytest.raises(NotControllerError):
        channels.make(uses("a"))
    channels.make(uses("a"))
    assert found(channels, "a") == {"a": A}


def test_a_deleted_topic_is_created_again_after_the_next_check() -> None:
    broker = Broker()
    channels = _channels(broker)
    channels.make(uses("a"))
    broker.existing.clear()
    channels.refresh()
    assert held(channels, "a") == {"a"}
    channels.make(uses("a"))
    assert broker.made == [[A], [A]]


def test_a_topic_that_another_process_creates_is_used_after_some_time() -> None:
    clock, broker = Clock(), Broker()
    broker.existing = {A}
    channels = _channels(broker, clock)
    channels.refresh()
    assert found(channels, "a") == {"a": A}, "it was there before we were"
    broker.existing = {A, B}
    for _ in range(2):
        channels.refresh()
        assert (found(channels, "b"), held(channels, "b")) == ({}, {"b"})
    clock.seconds += SETTLED_SECONDS
    channels.refresh()
    assert found(channels, "a", "b") == {"a": A, "b": B}


def test_a_topic_that_refuses_is_left_out_and_tried_again_after_growing_times() -> None:
    clock = Clock()
    channels = _channels(Broker(), clock)
    channels.make(uses("a"))
    waited = []
    for _ in range(3):
        channels.refuse(A, "too large")
        since = clock.seconds
        while not doubted(channels, "a"):
            assert found(channels, "a") == {}
            clock.seconds += 1
        waited.append(clock.seconds - since)
        channels.refuse(A, "too large")
        clock.seconds += 4 * REFUSED_SECONDS * 2 ** len(waited)
    assert waited[0] == REFUSED_SECONDS
    assert waited == sorted(waited)
    assert waited[-1] > waited[0]


def test_a_refusal_for_one_tenant_does_not_apply_to_another() -> None:
    channels = _channels(Broker())
    channels.make(uses("a"))
    channels.refuse(A, "too large", "harmful")
    assert (found(channels, "a", tenant="harmful"), found(channels, "a")) == ({}, {"a": A})
    assert channels.reason_to_log(ChannelUse("a", "harmful")) == "too large"


def test_of_many_topics_that_refuse_one_is_tried_at_a_time() -> None:
    clock = Clock()
    channels = _channels(Broker(), clock)
    channels.make(uses("a", "b"))
    for topic in (A, B):
        channels.refuse(topic, "too large")
    clock.seconds += REFUSED_SECONDS
    assert doubted(channels, "a", "b") == {"a", "b"}
    assert doubted(channels, "a", "b") == {"a", "b"}, "a look spends nothing"
    channels.refuse(A, "too large")
    channels.trial_failed()
    clock.seconds += TRIAL_SECONDS - 1
    assert doubted(channels, "a", "b") == set()
    clock.seconds += 1
    assert doubted(channels, "a", "b") == {"b"}


def test_a_suspected_topic_is_in_doubt_at_once_whatever_else_was_tried() -> None:
    channels = _channels(Broker())
    channels.make(uses("a", "b"))
    for _ in range(STALLS_MAX):
        channels.suspects([A, B])
    channels.trial_failed()
    assert (found(channels, "a", "b"), held(channels, "a", "b")) == ({}, set())
    assert doubted(channels, "a", "b") == {"a", "b"}
    assert [channels.stalled_alone(A) for _ in range(TRIALS_STALLED_MAX)] == [False] * (TRIALS_STALLED_MAX - 1) + [True]
    assert doubted(channels, "a", "b") == {"b"}
    channels.accept({ChannelUse("b", "t"): B})
    assert found(channels, "a", "b") == {"b": B}


def test_a_topic_that_accepts_events_again_is_used_again() -> None:
    clock = Clock()
    channels = _channels(Broker(), clock)
    channels.make(uses("a"))
    channels.refuse(A, "too large")
    clock.seconds += REFUSED_SECONDS
    channels.accept(channels.routes(uses("a")).doubted)
    assert found(channels, "a") == {"a": A}


def test_unexplained_stalls_are_attributed_to_the_channels_in_the_end() -> None:
    channels = _channels(Broker())
    assert [channels.suspects([A]) for _ in range(STALLS_MAX)] == [set()] * (STALLS_MAX - 1) + [{A}]
    channels.accept({ChannelUse("a", "t"): A})
    assert channels.suspects([A]) == set()


def test_a_refusal_is_logged_once_a_minute() -> None:
    clock = Clock()
    channels = _channels(Broker(), clock)
    channels.refuse(A, "too large")
    [use] = uses("a")
    assert [channels.reason_to_log(use), channels.reason_to_log(use)] == ["too large", None]
    clock.seconds += 60
    assert channels.reason_to_log(use) == "too large"
    assert channels.reason_to_log(ChannelUse("No Such/Name", "t")) == "the name is not valid for a topic"
