"""The channels' topics: which there are, which may still be made, which are in doubt, and which are left out for a while.

Shared by the loop of completions, which never makes one, and the loop of channels; no lock is held during a request.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from threading import RLock
from typing import Any, Protocol

from services.notifier.refusals import TRIAL_SECONDS, Refusal, Standing, refused, stalled_alone, standing, suspected
from services.notifier.shares import Shares
from tidings.contract.topics import Topic, channel_topic
from tidings.kafka.topics import NOT_READY, READY_SECONDS

# Transactions in a row that stalled although no topic stood out; then all channels of the batch are suspected. The
# broker itself is the likelier cause, so that their events are held.
STALLS_MAX = 3
# Longer than a topic is waited for by whoever makes it.
SETTLED_SECONDS = 1.5 * READY_SECONDS
# A channel that is left out is said so often.
SAID_SECONDS = 60.0
_STALLED = "events were not taken in time"


@dataclass(frozen=True)
class Use:
    """Whose event is for which channel. Several tenants may name one channel."""

    channel: str
    tenant: str


@dataclass(frozen=True)
class Routes:
    """The topic of each channel that has one, and whose events wait for theirs. `doubted` are topics to be tried alone,
    which is for the loop of channels; their events wait for it. The others have the main topic alone.
    """

    topics: Mapping[Use, str]
    held: frozenset[Use]
    doubted: Mapping[Use, str]


class TopicsPort(Protocol):
    """The broker's topics. Both raise a `KafkaError` when it does not answer."""

    def present(self) -> Collection[str]: ...
    def make(self, topics: Collection[Topic]) -> Mapping[str, str]:
        """Make topics in one request; why those of the answer could not be made, by name."""


class Channels:
    """Decides which channels' events have a topic to go to. One client's channel never holds up the others."""

    def __init__(self, topics: TopicsPort, *, channels_max: int, tenant_max: int, clock: Callable[[], float]) -> None:
        """`channels_max` topics in all, of which `tenant_max` may be one tenant's."""
        self._topics = topics
        self._shares = Shares(tenant_max)
        self._channels_max = channels_max
        self._clock = clock
        self._lock = RLock()
        self._known: set[str] = set()
        self._listed_at: dict[str, float] | None = None
        # By topic, and by the tenant whose records it refused; None: those of all.
        self._refused: dict[tuple[str, str | None], Refusal] = {}
        self._trial_at = clock()
        self._stalls = 0
        self._young: set[str] = set()
        self._said: dict[str, float] = {}

    def routes(self, uses: Collection[Use]) -> Routes:
        """Where the events of `uses` go now. Asks nobody, and changes nothing."""
        with self._lock:
            wanted = {use: topic.name for use in uses if (topic := channel_topic(use.channel)) is not None}
            there = {use: self._standing(name, use.tenant) for use, name in wanted.items() if name in self._known}
            room = len(self._known) < self._channels_max
            missing = {use: name for use, name in wanted.items() if use not in there}
            return Routes(
                {use: wanted[use] for use, found in there.items() if found is Standing.GOOD},
                frozenset(
                    use
                    for use, name in missing.items()
                    if room and self._shares.room(use.tenant) and not self._left_out(name, use.tenant)
                ),
                {use: wanted[use] for use, found in there.items() if found is Standing.DOUBTED},
            )

    def make(self, uses: Collection[Use]) -> set[str]:
        """Make topics for these, as far as there is room; the channels whose topic may be ready later.

        Raises a `KafkaError`.
        """
        with self._lock:
            making = self._makeable(uses)
        if not making:
            return set()
        failed = self._topics.make(list(making))
        with self._lock:
            made = {topic.name for topic in making} - set(failed)
            self._young |= made
            self._known |= made
            for name in made:
                self._refused.pop((name, None), None)
            slow = {name for name, reason in failed.items() if reason == NOT_READY}
            for topic, use in making.items():
                if topic.name in made | slow:
                    self._shares.add(use.tenant, topic.name)
            for name in set(failed) - slow:
                self.refuse(name, failed[name])
        return {use.channel for use in uses if (found := channel_topic(use.channel)) and found.name in slow}

    def users(self, topic: str) -> set[str]:
        """The tenants whose events have gone to `topic`, or for whom it was made."""
        with self._lock:
            return self._shares.users(topic)

    def refuse(self, topic: str, reason: str, tenant: str | None = None) -> None:
        """Leave a topic out for a while, longer each time: for one tenant, or for all."""
        with self._lock:
            self._keep(topic, tenant, refused(self._refused.get((topic, tenant)), reason, self._clock()))

    def trial_failed(self) -> None:
        """A topic in doubt was tried in vain; no other that refused is tried for a while."""
        with self._lock:
            self._trial_at = self._clock() + TRIAL_SECONDS

    def stalled_alone(self, topic: str) -> bool:
        """A trial of `topic` stalled, which was not the broker's fault. Whether it is left out now: it stalls again."""
        with self._lock:
            found = stalled_alone(self._refused.get((topic, None)), _STALLED, self._clock())
            self._keep(topic, None, found)
            return not found.suspected

    def accept(self, topics: Mapping[Use, str]) -> None:
        """These took their events: an earlier refusal is forgotten."""
        with self._lock:
            for use, topic in topics.items():
                self._shares.add(use.tenant, topic)
                self._refused.pop((topic, use.tenant), None)
                self._refused.pop((topic, None), None)
                self._young.discard(topic)
            if topics:
                self._stalls = 0

    def blame(self, topics: Collection[str]) -> set[str]:
        """Those of `topics`, which hang, to leave out: the broker opens a topic's logs a while after it has made it."""
        with self._lock:
            young = self._young & set(topics)
            self._young -= young
            return set(topics) - young

    def suspects(self, topics: Collection[str]) -> set[str]:
        """Those of a batch's `topics` that are in doubt after a stall that nothing explains: none at first, then all."""
        with self._lock:
            self._stalls += 1
            if self._stalls < STALLS_MAX:
                return set()
            for topic in topics:
                self._keep(topic, None, suspected(self._refused.get((topic, None)), _STALLED, self._clock()))
            return set(topics)

    def gone(self, topics: Collection[str]) -> set[str]:
        """Those of `topics` that are not there any more. Raises a `KafkaError`."""
        present = self._topics.present()
        with self._lock:
            self._known &= set(present)
            return set(topics) - self._known

    def look_again(self) -> None:
        """Ask which topics exist: another process makes some, and somebody may delete one. Raises a `KafkaError`.

        One that is listed for the first time may not be ready, and whoever writes to it would wait. It is used when it
        has been there for a while; until then its events are held, and whoever makes it for them sees whether it is.
        """
        present = {name for name in self._topics.present() if _is_channel(name)}
        with self._lock:
            self._shares.keep(present | self._known)
            now = self._clock()
            # At the start all are old.
            first = now if self._listed_at is not None else now - SETTLED_SECONDS
            before = self._listed_at or {}
            self._listed_at = {name: before.get(name, first) for name in present}
            settled = {name for name, at in self._listed_at.items() if now - at >= SETTLED_SECONDS}
            self._known = self._known & present | settled

    def news(self, use: Use) -> str | None:
        """Why a channel has no topic, for a log line; None when that was said a moment ago."""
        with self._lock:
            now = self._clock()
            if now - self._said.get(use.channel, -SAID_SECONDS) < SAID_SECONDS:
                return None
            self._said.pop(use.channel, None)
            self._said[use.channel] = now
            _cut(self._said, self._channels_max)
            return self._reason(use)

    def _reason(self, use: Use) -> str:
        topic = channel_topic(use.channel)
        if topic is None:
            return "the name cannot be that of a topic"
        refusals = self._refusals(topic.name, use.tenant)
        if refusals:
            return refusals[0].reason
        full = len(self._known) >= self._channels_max or self._shares.room(use.tenant)
        return "too many channels" if full else "too many channels of its tenant"

    def _makeable(self, uses: Collection[Use]) -> dict[Topic, Use]:
        """The missing topics that there is room for, each with the first of whom it is."""
        making: dict[Topic, Use] = {}
        for use in uses:
            topic = channel_topic(use.channel)
            if topic is None or topic.name in self._known or topic in making:
                continue
            own = sum(other.tenant == use.tenant for other in making.values())
            if len(self._known) + len(making) < self._channels_max and self._shares.room(use.tenant, own):
                making[topic] = use
        return making

    def _keep(self, topic: str, tenant: str | None, refusal: Refusal) -> None:
        self._refused.pop((topic, tenant), None)
        self._refused[topic, tenant] = refusal
        _cut(self._refused, self._channels_max)

    def _standing(self, topic: str, tenant: str) -> Standing:
        return standing(self._refusals(topic, tenant), self._clock(), self._trial_at)

    def _left_out(self, topic: str, tenant: str) -> bool:
        return any(self._clock() < refusal.until for refusal in self._refusals(topic, tenant))

    def _refusals(self, topic: str, tenant: str) -> list[Refusal]:
        return [found for whose in (tenant, None) if (found := self._refused.get((topic, whose))) is not None]


def _is_channel(name: str) -> bool:
    prefix, _, channel = name.rpartition(".")
    topic = channel_topic(channel)
    return bool(prefix) and topic is not None and topic.name == name


def _cut(names: dict[Any, Any], names_max: int) -> None:
    """Forget the oldest: clients invent names, which must not take up memory without a limit."""
    while len(names) > max(1, names_max):
        del names[next(iter(names))]
