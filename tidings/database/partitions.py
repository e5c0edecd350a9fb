"""Creates the monthly partitions: of the present month, of the coming ones, and of rows in a default partition.

The work is in migrations/0006_partitions.sql, one bounded step per call, so that no step holds a lock for long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

from tidings.database.queries import load_queries

# The number of steps in one round that copy rows out of a default partition; a step copies some thousands.
STEPS_MAX = 10_000

# Executes a statement in its own transaction and returns its rows.
Execute = Callable[[LiteralString, Mapping[str, Any]], Sequence[tuple[Any, ...]]]


@dataclass
class Made:
    """The result of a round: partitions created, partitions blocked by a reader or a writer, rows moved out of the
    default partitions.
    """

    names: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    moved: int = 0


class Partitions:
    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._q = load_queries("tidings.database", "partitions.sql")

    def make(self) -> Made:
        """Do one round. A month of a table takes one transaction or several; no transaction covers two tables."""
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
