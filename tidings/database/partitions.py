"""Making the months' partitions: of this month, of those ahead, and of rows that fell into a default partition.

The work is in migrations/0006_partitions.sql, a bounded step a call, so that no step holds a lock for long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

from tidings.database.queries import load_queries

# Steps of copying rows out of a default partition in one round; a step copies some thousands.
STEPS_MAX = 10_000

# A statement in a transaction of its own; its rows.
Execute = Callable[[LiteralString, Mapping[str, Any]], Sequence[tuple[Any, ...]]]


@dataclass
class Made:
    """A round: partitions made, those that a reader or a writer was in the way of, rows moved out of the default ones."""

    names: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    moved: int = 0


class Partitions:
    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._q = load_queries("tidings.database", "partitions.sql")

    def make(self) -> Made:
        """One round. A month of a table is one transaction or several, and none spans two tables."""
        made = Made()
        for parent, month in self._execute(self._q["missing"], {}):
            name = f"{parent}_{month:%Y_%m}"
            outcome = self._make(parent, month, made)
            if outcome == "made":
                made.names.append(name)
            elif outcome == "busy":
                made.busy.append(name)
        return made

    def _make(self, parent: str, month: Any, made: Made) -> str:
        for _ in range(STEPS_MAX):
            [(outcome, moved)] = self._execute(self._q["make"], {"parent": parent, "month": month})
            made.moved += moved
            if outcome != "copying":
                return str(outcome)
        return "busy"
