"""What is known against a topic, and what follows from it for an event that comes now: pure decisions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum

# A topic that refused is tried again after 60 s, 2 min … an hour.
REFUSED_SECONDS = 60.0
REFUSED_SECONDS_MAX = 3600.0
# A trial that fails may take the time of one transaction (8 s), which other held events wait for. So of all topics that
# refused none is tried for a minute after one; those that are suspected alone do not wait for that.
TRIAL_SECONDS = 60.0
# Trials in a row that stalled, while the broker took the same event on another topic. One may be the end of an outage.
TRIALS_STALLED_MAX = 2


class Standing(Enum):
    """`GOOD`: written with others. `DOUBTED`: held, and tried alone. `REFUSED`: left out."""

    GOOD = "good"
    DOUBTED = "doubted"
    REFUSED = "refused"


@dataclass(frozen=True)
class Refusal:
    """`until`: when the topic may be tried, after `seconds`. `suspected`: not proven; `stalls`: trials that stalled."""

    reason: str
    until: float
    seconds: float = 0.0
    suspected: bool = False
    stalls: int = 0


def standing(refusals: Collection[Refusal], now: float, trial_at: float) -> Standing:
    """Of a topic with these refusals. `trial_at`: from when on one that refused may be tried."""
    if not refusals:
        return Standing.GOOD
    if any(now < refusal.until or (not refusal.suspected and now < trial_at) for refusal in refusals):
        return Standing.REFUSED
    return Standing.DOUBTED


def refused(before: Refusal | None, reason: str, now: float) -> Refusal:
    """A topic refused, for the first time or again: it is left out, longer each time."""
    again = before is not None and not before.suspected
    seconds = min(REFUSED_SECONDS_MAX, before.seconds * 2) if before is not None and again else REFUSED_SECONDS
    return Refusal(reason, now + seconds, seconds)


def suspected(before: Refusal | None, reason: str, now: float) -> Refusal:
    """Something stalled, and this topic may be the cause."""
    return before or Refusal(reason, now, suspected=True)


def stalled_alone(before: Refusal | None, reason: str, now: float) -> Refusal:
    """A trial of the topic stalled, and the broker took the event on another topic."""
    found = suspected(before, reason, now)
    if found.suspected and found.stalls + 1 < TRIALS_STALLED_MAX:
        return replace(found, stalls=found.stalls + 1)
    return refused(before, reason, now)
