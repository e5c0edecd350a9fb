"""The channels' topics: what is made, what is refused, and what is tried again."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from kafka.errors import KafkaError, NotControllerError, PolicyViolationError

from services.notifier.channels import Channels
from tidings.topics import Topic


class Broker:
    def __init__(self, *errors: KafkaError) -> None:
        self.made: list[str] = []
        self._errors = list(errors)

    def create(self, topics: Iterable[Topic]) -> None:
        if self._errors:
            raise self._errors.pop(0)
        self.made += [topic.name for topic in topics]


def test_a_topic_is_made_once() -> None:
    broker = Broker()
    channels = Channels(broker.create, known=[], channels_max=2)
    assert [channels.topic("a"), channels.topic("a")] == ["tidings.completions.a"] * 2
    assert broker.made == ["tidings.completions.a"]


def test_a_channel_that_the_broker_forbids_holds_nobody_up() -> None:
    channels = Channels(Broker(PolicyViolationError()).create, known=[], channels_max=2)
    assert channels.topic("a") is None
    assert channels.topic("b") == "tidings.completions.b"


def test_a_broker_that_is_away_is_asked_again() -> None:
    channels = Channels(Broker(NotControllerError()).create, known=[], channels_max=2)
    with pytest.raises(NotControllerError):
        channels.topic("a")
    assert channels.topic("a") == "tidings.completions.a"
