"""The topics of channels: which exist, which may still be created, which are in doubt, and which are excluded.

Both loops share this object. The loop of completions never creates a topic. No lock is held during a request.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from threading import RLock
from typing import Any, Protocol

from services.notifier.refusals import TRIAL_SECONDS, Refusal, TopicState, refused, stalled_alone, state_of, suspected
from services.notifier.tenant_topics import TenantTopics
from tidings.contract.topics import Topic, channel_topic
from tidings.kafka.topics import NOT_READY, READY_SECONDS

# The number of consecutive stalled transactions without an identified topic after which every channel of the batch is
# suspected. The broker is the likelier cause, so the events are held.
STALLS_MAX = 3
# Longer than the creator of a topic waits for it.
SETTLED_SECONDS = 1.5 * READY_SECONDS
# The interval between log lines about an excluded channel.
LOG_INTERVAL_SECONDS = 60.0
_STALLED = "events were not accepted in time"


@dataclass(frozen=True)
class ChannelUse:
    """The channel and the tenant of an event. Several tenants may use one channel."""

    channel: str
    tenant: str


@dataclass(frozen=True)
class Routes:
    """`topics` are the topics of channels that have one; `held` are the uses whose events wait for a topic. `doubted`
    are topics that the loop of channels tries alone; their events wait for the trial. Other events have the main
    topic only.
    """

    topics: Mapping[ChannelUse, str]
    held: frozenset[ChannelUse]
    doubted: Mapping[ChannelUse, str]


class TopicsPort(Protocol):
    """The topics on the broker. Both methods raise a `KafkaError` if the broker does not respond."""

    def present(self) -> Collection[str]: ...
    def make(self, topics: Collection[Topic]) -> Mapping[str, str]:
        """Create topics in one request; return the failed ones, by name, with the reason."""


class Channels:
    """Decides which channels' events are written to a topic. A client's channel never blocks other channels."""

    def __init__(self, topics: TopicsPort, *, channels_max: int, tenant_max: int, clock: Callable[[], float]) -> None:
        """`channels_max` is the maximum number of topics, `tenant_max` the maximum of one tenant."""
        self._topics = topics
        self._tenant_topics = TenantTopics(tenant_max)
        self._channels_max = channels_max
        self._clock = clock
        self._lock = RLock()
        self._known: set[str] = set()
        self._listed_at: dict[str, float] | None = None
        # By topic, and by the tenant whose records the topic refused; None stands for every tenant.
        self._refused: dict[tuple[str, str | None], Refusal] = {}
        self._trial_at = clock()
        self._stalls = 0
        self._new: set[str] = set()
        self._logged_at: dict[str, float] = {}

    def routes(self, uses: Collection[ChannelUse]) -> Routes:
        """Return the routes of the events of `uses` at this time. Does no I/O and changes no state."""
        with self._lock:
            wanted = {use: topic.name for use in uses if (topic := channel_topic(use.channel)) is not None}
            existing = {use: self._state(name, use.tenant) for use, name in wanted.items() if name in self._known}
            has_capacity = len(self._known) < self._channels_max
            missing = {use: name for use, name in wanted.items() if use not in existing}
            return Routes(
                {use: wanted[use] for use, found in existing.items() if found is TopicState.AVAILABLE},
                frozenset(
                    use
                    for use, name in missing.items()
                    if has_capacity
                    and self._tenant_topics.has_capacity(use.tenant)
                    and not self._is_excluded(name, use.tenant)
                ),
                {use: wanted[use] for use, found in existing.items() if found is TopicState.DOUBTED},
            )

    def make(self, uses: Collection[ChannelUse]) -> set[str]:
        """Create topics for `uses` within the limits; return the channels whose topic may become ready later.

        Raises a `KafkaError`.
        """
        with self._lock:
            making = self._to_create(uses)
        if not making:
            return set()
        failed = self._topics.make(list(making))
        with self._lock:
            made = {topic.name for topic in making} - set(failed)
            self._new |= made
            self._known |= made
            for name in made:
                self._refused.pop((name, None), None)
            slow = {name for name, reason in failed.items() if reason == NOT_READY}
            for topic, use in making.items():
                if topic.name in made | slow:
                    self._tenant_topics.add(use.tenant, topic.name)
            for name in set(failed) - slow:
                self.refuse(name, failed[name])
        return {use.channel for use in uses if (found := channel_topic(use.channel)) and found.name in slow}

    def users(self, topic: str) -> set[str]:
        """Return the tenants whose events were written to `topic`, or for whom it was created."""
        with self._lock:
            return self._tenant_topics.users(topic)

    def refuse(self, topic: str, reason: str, tenant: str | None = None) -> None:
        """Exclude a topic for a while, longer each time: for one tenant, or for all."""
        with self._lock:
            self._keep(topic, tenant, refused(self._refused.get((topic, tenant)), reason, self._clock()))

    def trial_failed(self) -> None:
        """The trial of a doubted topic failed; for a while no other topic that refused an event is tried."""
        with self._lock:
            self._trial_at = self._clock() + TRIAL_SECONDS

    def stalled_alone(self, topic: str) -> bool:
        """A trial of `topic` stalled, and the broker was not the cause.
        Return whether the topic is excluded, because it stalled before.
        """
        with self._lock:
            found = stalled_alone(self._refused.get((topic, None)), _STALLED, self._clock())
            self._keep(topic, None, found)
            return not found.suspected

    def accept(self, topics: Mapping[ChannelUse, str]) -> None:
        """The topics accepted the events: forget earlier refusals."""
        with self._lock:
            for use, topic in topics.items():
                self._tenant_topics.add(use.tenant, topic)
                self._refused.pop((topic, use.tenant), None)
                self._refused.pop((topic, None), None)
                self._new.discard(topic)
            if topics:
                self._stalls = 0

    def count_failure(self, topics: Collection[str]) -> set[str]:
        """Return those of the hanging `topics` to exclude.
        A new topic is spared once, because the broker opens its logs some time after it creates the topic.
        """
        with self._lock:
            new = self._new & set(topics)
            self._new -= new
            return set(topics) - new

    def suspects(self, topics: Collection[str]) -> set[str]:
        """Return the `topics` of a batch that are in doubt after an unexplained stall: none at first, then all."""
        with self._lock:
            self._stalls += 1
            if self._stalls < STALLS_MAX:
                return set()
            for topic in topics:
                self._keep(topic, None, suspected(self._refused.get((topic, None)), _STALLED, self._clock()))
            return set(topics)

    def deleted(self, topics: Collection[str]) -> set[str]:
        """Return those of `topics` that no longer exist. Raises a `KafkaError`."""
        present = self._topics.present()
        with self._lock:
            self._known &= set(present)
            return set(topics) - self._known

    def refresh(self) -> None:
        """Ask the broker which topics exist: processes create and operators delete topics. Raises a `KafkaError`.

        A topic that appears for the first time may not be ready, and a producer would wait for it. It is used after it
        has existed for a while. Until then its events are held, and the loop of channels checks whether it is ready.
        """
        present = {name for name in self._topics.present() if _is_channel(name)}
        with self._lock:
            self._tenant_topics.keep(present | self._known)
            now = self._clock()
            # At the start, every topic counts as old.
            first = now if self._listed_at is not None else now - SETTLED_SECONDS
            before = self._listed_at or {}
            self._listed_at = {name: before.get(name, first) for name in present}
            settled = {name for name, at in self._listed_at.items() if now - at >= SETTLED_SECONDS}
            self._known = self._known & present | settled

    def reason_to_log(self, use: ChannelUse) -> str | None:
        """Return the reason why a channel has no topic, for a log line; None if it was logged a short time ago."""
        with self._lock:
            now = self._clock()
            if now - self._logged_at.get(use.channel, -LOG_INTERVAL_SECONDS) < LOG_INTERVAL_SECONDS:
                return None
            self._logged_at.pop(use.channel, None)
            self._logged_at[use.channel] = now
            _limit_size(self._logged_at, self._channels_max)
            return self._reason(use)

    def _reason(self, use: ChannelUse) -> str:
        topic = channel_topic(use.channel)
        if topic is None:
            return "the name is not valid for a topic"
        refusals = self._refusals(topic.name, use.tenant)
        if refusals:
            return refusals[0].reason
        full = len(self._known) >= self._channels_max or self._tenant_topics.has_capacity(use.tenant)
        return "too many channels" if full else "too many channels of its tenant"

    def _to_create(self, uses: Collection[ChannelUse]) -> dict[Topic, ChannelUse]:
        """Return the missing topics within the limits, each with the first use that needs it."""
        making: dict[Topic, ChannelUse] = {}
        for use in uses:
            topic = channel_topic(use.channel)
            if topic is None or topic.name in self._known or topic in making:
                continue
            own = sum(other.tenant == use.tenant for other in making.values())
            if len(self._known) + len(making) < self._channels_max and self._tenant_topics.has_capacity(
                use.tenant, own
            ):
                making[topic] = use
        return making

    def _keep(self, topic: str, tenant: str | None, refusal: Refusal) -> None:
        self._refused.pop((topic, tenant), None)
        self._refused[topic, tenant] = refusal
        _limit_size(self._refused, self._channels_max)

    def _state(self, topic: str, tenant: str) -> TopicState:
        return state_of(self._refusals(topic, tenant), self._clock(), self._trial_at)

    def _is_excluded(self, topic: str, tenant: str) -> bool:
        return any(self._clock() < refusal.until for refusal in self._refusals(topic, tenant))

    def _refusals(self, topic: str, tenant: str) -> list[Refusal]:
        return [found for owner in (tenant, None) if (found := self._refused.get((topic, owner))) is not None]


def _is_channel(name: str) -> bool:
    prefix, _, channel = name.rpartition(".")
    topic = channel_topic(channel)
    return bool(prefix) and topic is not None and topic.name == name


def _limit_size(names: dict[Any, Any], names_max: int) -> None:
    """Remove the oldest entries: clients choose the names, so the memory for them must be bounded."""
    while len(names) > max(1, names_max):
        del names[next(iter(names))]
