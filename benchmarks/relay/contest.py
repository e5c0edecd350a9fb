"""Runs rounds of contestants in random order, and summarizes their figures: median, lowest, highest, and ratios within
a round.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

from benchmarks.relay.processor import load_average

Line = dict[str, Any]


class VoidError(Exception):
    """The run lost, doubled or confused calls or answers, so its speed does not count."""


@dataclass(frozen=True)
class Contestant:
    """`run` runs one round and returns its figures. An error makes the round void, and is the reason in the results."""

    name: str
    run: Callable[[], Line]


def compete(contestants: Sequence[Contestant], rounds: int, order: random.Random) -> list[Line]:
    """Run all contestants `rounds` times. Return one line per run."""
    found = []
    for number in range(rounds):
        for contestant in order.sample(contestants, len(contestants)):
            before, began = load_average(), time.monotonic()
            try:
                seen = contestant.run()
            except Exception as error:  # noqa: BLE001  any error of a peer is a result
                seen = {"void": f"{type(error).__name__}: {error}"[:500]}
            line = {"round": number, "name": contestant.name} | seen
            line |= {"load_average": [before, load_average()], "took_seconds": round(time.monotonic() - began, 1)}
            found.append(line)
            said = ", ".join(f"{name} {value}" for name, value in line.items() if name not in {"round", "name"})
            click.echo(f"  [{number + 1}/{rounds}] {contestant.name}: {said}")
    return found


@dataclass(frozen=True)
class Spread:
    """The median, the lowest and the highest value of the rounds that count."""

    median: float
    lowest: float
    highest: float
    rounds: int

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.lowest)} to {_short(self.highest)}, {self.rounds})"


def spread(found: Sequence[Line], name: str, figure: str) -> Spread | None:
    """The spread of one contestant's figure; None when no round of it counts."""
    return _spread([float(line[figure]) for line in found if line["name"] == name and figure in line])


def ratio(found: Sequence[Line], figure: str, name: str, other: str) -> Spread | None:
    """The ratios of `name` to `other` within each round in which both count."""
    pairs = [(_one(found, number, name, figure), _one(found, number, other, figure)) for number in _rounds(found)]
    return _spread([one / two for one, two in pairs if one is not None and two])


def ratio_to_best(found: Sequence[Line], figure: str, name: str, others: Sequence[str]) -> Spread | None:
    """The ratios of `name` to the lowest of `others` in the same round."""
    ratios = []
    for number in _rounds(found):
        one = _one(found, number, name, figure)
        theirs = [value for other in others if (value := _one(found, number, other, figure)) is not None]
        if one is not None and theirs:
            ratios.append(one / min(theirs))
    return _spread(ratios)


def table(found: Sequence[Line], names: Sequence[str], figures: Sequence[str]) -> str:
    """A Markdown table with one row per contestant: medians (lowest to highest, rounds that count), or the reason why
    its last round was void.
    """
    rows = ["| | " + " | ".join(figures) + " |", "|---" * (len(figures) + 1) + "|"]
    for name in names:
        cells = [str(spread(found, name, figure) or "-") for figure in figures]
        reasons = [line["void"] for line in found if line["name"] == name and "void" in line]
        if reasons and set(cells) == {"-"}:
            cells = [f"did not run: {reasons[-1]}"[:160]] + [""] * (len(figures) - 1)
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def plain(value: object) -> object:
    """A spread as a mapping, for JSON; any other value as it is."""
    return asdict(value) if isinstance(value, Spread) else value


def _short(value: float) -> str:
    """`value` with three significant digits, or with all digits before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _rounds(found: Sequence[Line]) -> list[int]:
    return sorted({line["round"] for line in found})


def _one(found: Sequence[Line], number: int, name: str, figure: str) -> float | None:
    values = [line[figure] for line in found if line["round"] == number and line["name"] == name and figure in line]
    return float(values[0]) if values else None


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    return Spread(round(statistics.median(values), 4), round(min(values), 4), round(max(values), 4), len(values))
