"""The time of the last action on each submission, so that looks do not repeat it. Bounded; lost at a restart."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from uuid import UUID

# The oldest entries are forgotten first; an action too many is harmless.
REMEMBERED_MAX = 100_000


class RecentActions:
    def __init__(self, repeat_seconds: float, clock: Callable[[], float]) -> None:
        """`clock` returns monotonic seconds."""
        self._repeat_seconds = repeat_seconds
        self._clock = clock
        self._at: OrderedDict[UUID, float] = OrderedDict()

    def due(self, ids: Iterable[UUID]) -> list[UUID]:
        """Return those of `ids` without a recent action."""
        since = self._clock() - self._repeat_seconds
        return [id_ for id_ in ids if self._at.get(id_, since) <= since]

    def add(self, ids: Iterable[UUID]) -> None:
        now = self._clock()
        for id_ in ids:
            self._at[id_] = now
            self._at.move_to_end(id_)
        while len(self._at) > REMEMBERED_MAX:
            self._at.popitem(last=False)
