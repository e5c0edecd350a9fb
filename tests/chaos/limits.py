"""Promises about limits, checked by the requests that the destination received."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from tests.chaos.evidence import Arrival, Evidence

# A window of the relay begins with the first call after the end of the last window, so any interval of a period touches
# two.
WINDOWS_TOUCHED = 2


def parallelism_holds(evidence: Evidence) -> Iterator[str]:
    for limit in evidence.limits:
        arrivals = [a for a in evidence.arrivals if a.limit == limit.name]
        most = most_at_once(arrivals)
        if limit.parallelism is not None and most > limit.parallelism:
            when = _first_over(arrivals, limit.parallelism) - evidence.began
            yield f"{limit.name}: {most} calls at a time, {limit.parallelism} are allowed, first at {when:.3f} s"


def rate_holds(evidence: Evidence) -> Iterator[str]:
    for limit in evidence.limits:
        if limit.rate is None:
            continue
        most = most_within((a.began for a in evidence.arrivals if a.limit == limit.name), seconds=limit.period_seconds)
        if most > limit.rate * WINDOWS_TOUCHED:
            yield f"{limit.name}: {most} calls within {limit.period_seconds:g} s, {limit.rate} a window are allowed"


def most_at_once(arrivals: Iterable[Arrival]) -> int:
    """An end counts before a start at the same time."""
    moments = sorted(m for a in arrivals for m in ((a.began, 1), (a.ended, -1)))
    now = most = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


def _first_over(arrivals: Iterable[Arrival], parallelism: int) -> float:
    """The start of the first call that exceeded the limit."""
    ordered = sorted(arrivals, key=lambda arrival: arrival.began)
    return next(
        now.began
        for n, now in enumerate(ordered)
        if sum(other.ended > now.began for other in ordered[:n]) >= parallelism
    )


def most_within(times: Iterable[float], *, seconds: float) -> int:
    """The maximum number of `times` in any half-open interval of `seconds`."""
    ordered = sorted(times)
    return max((bisect_left(ordered, at + seconds) - n for n, at in enumerate(ordered)), default=0)
