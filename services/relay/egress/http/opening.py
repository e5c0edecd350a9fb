"""Calls that wait for a connection, by origin: which of them delay others, and which must return later.

Calls to a fast destination reuse connections, so only a limited number may wait at a time (`counted`). A destination
that accepts no connections must not block all others: it is *slow*, its calls no longer count, and some of them
are put off when they are too many: the newest of one origin, or the oldest of all slow origins together. No I/O.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from services.relay.egress.http.faults import NotAttemptedError

# The interval between calls of `look`. Younger calls say nothing about their origin: TLS with another continent takes
# this long.
LOOK_SECONDS = 0.25
# An origin is slow when its calls would wait longer than this at the recent rate of new connections. A burst of 300
# handshakes takes a busy processor a second.
SLOW_WAIT_SECONDS = 4.0
# A call that is put off returns after the time for which its origin has been slow: seconds for a short fault. It
# returns at most after the connect timeout, as the present calls have ended by then.
LATER_SECONDS_MIN, LATER_SECONDS_MAX = 1.0, 30.0
# This many calls of one origin return together, the next ones this much later, and the last after RETURN_SECONDS_MAX.
# Each is claimed and given back, which delays the messages of others. Thirty thousand are a hundred a second.
RETURNS_MAX, RETURNS_SECONDS = 100, 1.0
RETURN_SECONDS_MAX = 300.0
# `_Origin.came` halves with each look, so it approaches the connections of this many looks.
_LOOKS = 2


@dataclass(eq=False, slots=True)
class Opening:
    """One call. `limit` is the timeout that ends it early; `put_off` says that it did."""

    began: float
    limit: asyncio.Timeout | None = None
    put_off: bool = False


@dataclass(eq=False, slots=True)
class _Origin:
    """`calls` are in the order of their start."""

    calls: dict[Opening, None] = field(default_factory=dict)
    came: float = 0.0
    slow: bool = False


class SlowCalls:
    """The number of calls to slow origins, and its limit: for one pool of connections, for several, or for a part of
    them.
    """

    def __init__(self, calls_max: int, whole: SlowCalls | None = None) -> None:
        """`whole` is the limit that this one is a part of."""
        self._calls_max = calls_max
        self._whole = whole
        self.count = 0
        # The calls of `count` that were put off. They end at once.
        self._ending = 0

    @property
    def left(self) -> int:
        left = self._calls_max - self.count + self._ending
        return left if self._whole is None else min(left, self._whole.left)

    def add(self, calls: int, *, ending: int = 0) -> None:
        """Change the number of calls by `calls`. `ending` of them were put off."""
        self.count += calls
        self._ending += ending
        if self._whole is not None:
            self._whole.add(calls, ending=ending)


class Openings:
    """`slow` limits the calls of all slow origins together. One origin may have a quarter of what is left of it."""

    def __init__(self, slow: SlowCalls, clock: Callable[[], float]) -> None:
        self._slow = slow
        self._clock = clock
        self._origins: dict[Hashable, _Origin] = {}
        # The return time of the last put-off call of each origin, and how many calls return then.
        self._returns: dict[Hashable, tuple[float, int]] = {}
        # The time since when each origin is slow. It includes origins whose calls were put off and have not returned.
        self._slow_since: dict[Hashable, float] = {}
        self.counted = 0

    def __bool__(self) -> bool:
        """Whether any call waits for a connection."""
        return bool(self._origins)

    def begin(self, key: Hashable) -> Opening:
        """Register a call to the origin `key`, which must be passed to `end`. Raises `NotAttemptedError`."""
        origin = self._origins.get(key)
        if origin is None:
            origin = self._origins[key] = _Origin()
            self._forget_old(key)
        opening = Opening(self._clock())
        if not origin.slow:
            self.counted += 1
        elif len(origin.calls) < self._room():
            self._slow.add(1)
        else:
            raise self.later(key)
        origin.calls[opening] = None
        return opening

    def end(self, key: Hashable, opening: Opening, *, came: bool) -> None:
        """Unregister a call that has a connection (`came`), or will not get one."""
        origin = self._origins[key]
        del origin.calls[opening]
        # An origin that refuses at once does not delay others either.
        if came or self._clock() - opening.began < LOOK_SECONDS:
            origin.came += 1
        if came and not origin.slow:
            self._slow_since.pop(key, None)
        if not origin.slow:
            self.counted -= 1
        else:
            self._slow.add(-1, ending=-opening.put_off)
        if not origin.calls:
            del self._origins[key]

    def look(self) -> None:
        """Determine which origins are slow now, and put off the excess calls of one of them, or of all together."""
        now = self._clock()
        # A due call returns slightly later than that, and must find its origin still marked slow.
        self._returns = {key: last for key, last in self._returns.items() if last[0] > now - LATER_SECONDS_MAX}
        self._slow_since = {
            key: since for key, since in self._slow_since.items() if key in self._origins or key in self._returns
        }
        for key, origin in self._origins.items():
            waiting = now - next(iter(origin.calls)).began
            rate = origin.came / (_LOOKS * LOOK_SECONDS)
            slow = waiting >= LOOK_SECONDS and len(origin.calls) > rate * SLOW_WAIT_SECONDS
            origin.came /= 2
            if slow != origin.slow:
                self._turn(key, origin, slow=slow)
            if slow:
                self._put_off(origin, now)
        if self._slow.left < 0:
            self._put_off_excess(now)

    def later(self, key: Hashable) -> NotAttemptedError:
        """The error for a call that is put off."""
        now = self._clock()
        passed = now - self._slow_since.setdefault(key, now)
        first = now + min(max(passed, LATER_SECONDS_MIN), LATER_SECONDS_MAX)
        at, count = self._returns.get(key, (now, 0))
        if at < first:
            at, count = math.ceil(first / RETURNS_SECONDS) * RETURNS_SECONDS, 0
        elif count >= RETURNS_MAX:
            at, count = min(at + RETURNS_SECONDS, now + RETURN_SECONDS_MAX), 0
        self._returns[key] = at, count + 1
        return NotAttemptedError("too many calls wait for a connection to the destination", at - now)

    def _forget_old(self, key: Hashable) -> None:
        """Forget since when an origin was slow if its calls are long overdue: nothing looked in the meantime."""
        last = self._returns.get(key)
        if last is None or last[0] < self._clock() - LATER_SECONDS_MAX:
            self._slow_since.pop(key, None)

    def _room(self) -> int:
        """The limit for one slow origin that has a call already. It falls as all slow origins take more."""
        return max(1, self._slow.left // 4)

    def _turn(self, key: Hashable, origin: _Origin, *, slow: bool) -> None:
        change = len(origin.calls) if slow else -len(origin.calls)
        origin.slow = slow
        if slow:
            self._slow_since.setdefault(key, self._clock())
        else:
            self._slow_since.pop(key, None)
        put_off = sum(one.put_off for one in origin.calls)
        self._slow.add(change, ending=put_off if slow else -put_off)
        self.counted -= change

    def _put_off(self, origin: _Origin, now: float) -> None:
        # Calls that were put off do not count in what is left. Of the others, the origin's own do not reduce its share.
        calls = [opening for opening in origin.calls if not opening.put_off]
        share = max(1, (self._slow.left + len(calls)) // 5)
        for opening in calls[share:]:
            self._end(opening, now)

    def _put_off_excess(self, now: float) -> None:
        """Put off the oldest calls of slow origins, even if some origins then have none: otherwise many origins with
        one call each would take all places. The oldest, as a merely distant origin has a connection after a second.
        """
        calls = [opening for origin in self._origins.values() if origin.slow for opening in origin.calls]
        for opening in sorted(calls, key=lambda one: one.began):
            if self._slow.left >= 0:
                return
            self._end(opening, now)

    def _end(self, opening: Opening, now: float) -> None:
        """Put off a call of a slow origin. A call without a timeout yet, or one that is over, stays unchanged."""
        if opening.limit is not None and not opening.put_off and not opening.limit.expired():
            opening.put_off = True
            opening.limit.reschedule(now)
            self._slow.add(0, ending=1)
