"""The number of results that were read, by the hour of their end.
If the database has more for an hour, a result became visible late.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from uuid import UUID

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Hour:
    """`count` results were read with `after` < event id <= `upto`."""

    after: UUID
    upto: UUID
    count: int


class ReadResults:
    """Counts results whose event ids follow `begun`."""

    def __init__(self, begun: UUID) -> None:
        self._begun = begun
        self._counts: Counter[int] = Counter()

    def add(self, event_id: UUID) -> None:
        self._counts[_hour(event_id)] += 1

    def forget_from(self, hour: Hour) -> None:
        """Forget this hour and later ones, because they will be read again."""
        self._counts = Counter({before: n for before, n in self._counts.items() if before < _hour(hour.after)})

    def hours(self, since: UUID, upto: UUID) -> list[Hour]:
        """Return all hours up to `upto`, oldest first, including hours without a result.
        Hours that ended before `since` are forgotten, and so is the hour that contains it.
        """
        if since > self._begun:
            self._begun = _start(_hour(since) + 1)
            self._counts = Counter({hour: n for hour, n in self._counts.items() if hour > _hour(since)})
        between = [
            Hour(max(self._begun, _start(hour)), min(upto, _start(hour + 1)), self._counts[hour])
            for hour in range(_hour(self._begun), _hour(upto) + 1)
        ]
        return [hour for hour in between if hour.after < hour.upto]


def _hour(id_: UUID) -> int:
    return (id_.int >> 80) // HOUR_MS


def _start(hour: int) -> UUID:
    """Return an id below every id of the hour."""
    return UUID(int=hour * HOUR_MS << 80)
