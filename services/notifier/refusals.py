"""What is known about the failures of a topic, and the decision on the next event for it. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum

# A topic that refused an event is tried again after 60 s, 2 min … an hour.
REFUSED_SECONDS = 60.0
REFUSED_SECONDS_MAX = 3600.0
# A failed trial may take the time of one transaction (8 s), for which other held events wait. After a failed trial, no
# topic that refused an event is tried for a minute. Topics that are only suspected do not wait for that.
TRIAL_SECONDS = 60.0
# The number of consecutive trials that stall while the broker accepts the same event on another topic. A single one may
# be the end of an outage.
TRIALS_STALLED_MAX = 2


class TopicState(Enum):
    """`AVAILABLE`: events are written together with others.
    `DOUBTED`: events are held and tried alone. `REFUSED`: excluded.
    """

    AVAILABLE = "good"
    DOUBTED = "doubted"
    REFUSED = "refused"


@dataclass(frozen=True)
class Refusal:
    """`until`: the time at which the topic may be tried, after `seconds`.
    `suspected`: a cause that is not proven; `stalls`: the number of stalled trials.
    """

    reason: str
    until: float
    seconds: float = 0.0
    suspected: bool = False
    stalls: int = 0


def state_of(refusals: Collection[Refusal], now: float, trial_at: float) -> TopicState:
    """Return the standing of a topic with these refusals.
    `trial_at`: the time from which a topic that refused may be tried.
    """
    if not refusals:
        return TopicState.AVAILABLE
    if any(now < refusal.until or (not refusal.suspected and now < trial_at) for refusal in refusals):
        return TopicState.REFUSED
    return TopicState.DOUBTED


def refused(before: Refusal | None, reason: str, now: float) -> Refusal:
    """A topic refused an event, for the first time or again: it is excluded, longer each time."""
    seconds = REFUSED_SECONDS if before is None or before.suspected else min(REFUSED_SECONDS_MAX, before.seconds * 2)
    return Refusal(reason, now + seconds, seconds)


def suspected(before: Refusal | None, reason: str, now: float) -> Refusal:
    """A transaction stalled, and this topic may be the cause."""
    return before or Refusal(reason, now, suspected=True)


def stalled_alone(before: Refusal | None, reason: str, now: float) -> Refusal:
    """A trial of the topic stalled, and the broker accepted the event on another topic."""
    found = suspected(before, reason, now)
    if found.suspected and found.stalls + 1 < TRIALS_STALLED_MAX:
        return replace(found, stalls=found.stalls + 1)
    return refused(before, reason, now)
