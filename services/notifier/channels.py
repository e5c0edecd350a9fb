"""The channels' topics: made when first named, up to a limit, and left out for a while when they refuse an event."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tidings.topics import Topic, channel_topic

# A topic that refused is tried again after 60 s, 2 min … an hour. A trial may cost everybody the time of one
# transaction (8 s), so that of all refused topics only one is tried in a minute.
REFUSED_SECONDS = 60.0
REFUSED_SECONDS_MAX = 3600.0
TRIAL_SECONDS = 60.0
# Transactions in a row that stalled although no topic stood out; then all channels of the batch are suspected. The
# broker itself is the likelier cause.
STALLS_MAX = 3
# A channel that is left out is said so often.
SAID_SECONDS = 60.0


class TopicsPort(Protocol):
    """The broker's topics. Both raise a `KafkaError` when it does not answer."""

    def present(self) -> Collection[str]: ...
    def make(self, topics: Collection[Topic]) -> Mapping[str, str]:
        """Make topics in one request; why those of the answer could not be made, by name."""


@dataclass
class _Refusal:
    reason: str
    until: float
    seconds: float


class Channels:
    """Decides which channels' events have a topic to go to. One client's channel never holds up the others."""

    def __init__(self, topics: TopicsPort, *, channels_max: int, clock: Callable[[], float]) -> None:
        self._topics = topics
        self._channels_max = channels_max
        self._clock = clock
        self._known: set[str] | None = None
        self._refused: dict[str, _Refusal] = {}
        self._trial_at = clock()
        self._stalls = 0
        self._young: set[str] = set()
        self._said: dict[str, float] = {}

    def topics(self, channels: Collection[str]) -> dict[str, str]:
        """The topic of each of `channels` that has one now; missing ones are made. Raises a `KafkaError`."""
        wanted = {channel: topic for channel in channels if (topic := channel_topic(channel)) is not None}
        usable = {channel: topic for channel, topic in wanted.items() if self._may(topic.name)}
        self._make([topic for topic in usable.values() if topic.name not in self._present()])
        return {channel: topic.name for channel, topic in usable.items() if topic.name in self._present()}

    def refuse(self, topic: str, reason: str) -> None:
        """Leave a topic out for a while, longer each time."""
        before = self._refused.pop(topic, None)
        seconds = REFUSED_SECONDS if before is None else min(REFUSED_SECONDS_MAX, before.seconds * 2)
        self._refused[topic] = _Refusal(reason, self._clock() + seconds, seconds)
        _cut(self._refused, self._channels_max)

    def accept(self, topics: Collection[str]) -> None:
        """These took their events: an earlier refusal is forgotten."""
        for topic in topics:
            self._refused.pop(topic, None)
            self._young.discard(topic)
        if topics:
            self._stalls = 0

    def blame(self, topics: Collection[str]) -> set[str]:
        """Those of `topics`, which hang, to leave out: the broker opens a topic's logs a while after it has made it."""
        young = self._young & set(topics)
        self._young -= young
        return set(topics) - young

    def suspects(self, topics: Collection[str]) -> set[str]:
        """Those of a batch's `topics` to leave out after a stall that nothing explains: none at first, then all."""
        self._stalls += 1
        return set(topics) if self._stalls >= STALLS_MAX else set()

    def gone(self, topics: Collection[str]) -> set[str]:
        """Those of `topics` that are not there any more. Raises a `KafkaError`."""
        self.look_again()
        return set(topics) - self._present()

    def new(self, channel: str) -> bool:
        """Whether its topic would have to be made first. Raises a `KafkaError`."""
        topic = channel_topic(channel)
        return topic is not None and topic.name not in self._refused and topic.name not in self._present()

    def look_again(self) -> None:
        """Forget which topics exist: somebody may have deleted one. Raises a `KafkaError`."""
        self._known = None
        self._present()

    def news(self, channel: str) -> str | None:
        """Why a channel has no topic, for a log line; None when that was said a moment ago."""
        now = self._clock()
        if now - self._said.get(channel, -SAID_SECONDS) < SAID_SECONDS:
            return None
        self._said.pop(channel, None)
        self._said[channel] = now
        _cut(self._said, self._channels_max)
        return self._reason(channel)

    def _reason(self, channel: str) -> str:
        topic = channel_topic(channel)
        if topic is None:
            return "the name cannot be that of a topic"
        refusal = self._refused.get(topic.name)
        return refusal.reason if refusal is not None else "too many channels"

    def _may(self, topic: str) -> bool:
        refusal = self._refused.get(topic)
        if refusal is None:
            return True
        now = self._clock()
        if now < refusal.until or now < self._trial_at:
            return False
        self._trial_at = now + TRIAL_SECONDS
        return True

    def _present(self) -> set[str]:
        if self._known is None:
            self._known = {name for name in self._topics.present() if _is_channel(name)}
        return self._known

    def _make(self, missing: list[Topic]) -> None:
        room = max(0, self._channels_max - len(self._present()))
        made = missing[:room]
        if not made:
            return
        refused = self._topics.make(made)
        for name, reason in refused.items():
            self.refuse(name, reason)
        usable = {topic.name for topic in made} - set(refused)
        self._young |= usable
        self._present().update(usable)


def _is_channel(name: str) -> bool:
    prefix, _, channel = name.rpartition(".")
    topic = channel_topic(channel)
    return bool(prefix) and topic is not None and topic.name == name


def _cut(names: dict[str, Any], names_max: int) -> None:
    """Forget the oldest: clients invent names, which must not take up memory without a limit."""
    while len(names) > max(1, names_max):
        del names[next(iter(names))]
