"""Drops old months of submissions with all their rows, and the idempotency keys and removals of
contents of that time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tidings.database.queries import load_queries

# A submission may be open for 30 days, and a month is dropped only as a whole.
DAYS_MIN = 31
PRUNE_BATCH_MAX = 10_000
# The number of batches in one run: ten million rows. The next run deletes the rest.
PRUNE_BATCHES_MAX = 1_000


@dataclass(frozen=True)
class Month:
    """`name` is YYYY_MM. A month with `open` submissions remains until they have ended."""

    name: str
    submissions: int
    open: int
    bytes: int


@dataclass(frozen=True)
class Dropped:
    month: Month


@dataclass(frozen=True)
class Kept:
    month: Month
    why: str


class Retention:
    """`connection` must be in autocommit: each month is a transaction of its own."""

    def __init__(self, connection: psycopg.Connection[Any], days: int) -> None:
        if days < DAYS_MIN:
            raise ValueError(f"days must be at least {DAYS_MIN}")
        self._connection = connection
        self._days = days
        self._q = load_queries("tidings.database", "retention.sql")

    def months(self) -> list[Month]:
        """Return the months that are old enough as a whole, oldest first."""
        rows = self._rows("months", days=self._days)
        return [Month(row["month"], row["submissions"], row["open"], row["bytes"]) for row in rows]

    def old_keys(self) -> int:
        """Return the number of idempotency keys that are old enough. Only the administrator may read keys."""
        return int(self._rows("old_keys", days=self._days)[0]["keys"])

    def old_removals(self) -> int:
        """Return the number of settled removals of contents that are old enough.
        Only the administrator may read them.
        """
        return int(self._rows("old_removals", days=self._days)[0]["removals"])

    def drop(self) -> Iterator[Dropped | Kept]:
        """Drop the months that may be dropped, one by one, and return the outcome of each."""
        for month in self.months():
            if month.open:
                yield Kept(month, f"{month.open} of its submissions are open")
                continue
            try:
                [row] = self._rows("drop", month=month.name)
            except psycopg.errors.LockNotAvailable:
                yield Kept(month, "it is being read; a later run drops it")
                continue
            yield Dropped(month) if row["dropped"] else Kept(month, "it has changed meanwhile")

    def prune_keys(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Delete old idempotency keys; return their number."""
        return self._prune("prune_keys", stop)

    def prune_removals(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Delete old removals of contents that are settled; return their number."""
        return self._prune("prune_removals", stop)

    def _prune(self, name: str, stop: Callable[[], bool]) -> int:
        total = 0
        for _ in range(PRUNE_BATCHES_MAX):
            pruned = int(self._rows(name, days=self._days, batch_max=PRUNE_BATCH_MAX)[0]["pruned"])
            total += pruned
            if pruned < PRUNE_BATCH_MAX or stop():
                break
        return total

    def _rows(self, name: str, **parameters: object) -> list[dict[str, Any]]:
        return self._connection.cursor(row_factory=dict_row).execute(self._q[name], parameters).fetchall()
