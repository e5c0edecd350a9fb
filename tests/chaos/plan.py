"""The faults of a run, with their times, from a seed, so that a run can be repeated. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

# The processes that are killed, stopped and ended. Those with a number are second instances.
PROCESSES = (
    "api", "api-2", "dispatcher", "relay", "relay-2", "notifier", "notifier-2", "watcher", "reconciler", "connect",
    "kafka",
)  # fmt: skip
# The connections through our proxies: from each second instance to its server.
LINKS = ("postgres", "kafka")

# The control: there is no fault, and the probe of that moment shows the duration without one.
CONTROL = "nothing"

# A system that was just started has no faults, and some of the load follows the last fault.
LEAD_SECONDS = 2.0
TAIL_SECONDS = 5.0


@dataclass(frozen=True)
class Kind:
    """A fault that can happen to `target`. `lasts`: the shortest and longest time until it is undone. Both are 0 if it
    has no duration. `weight` is its number in one deck.
    """

    name: str
    target: str
    lasts: tuple[float, float] = (0.0, 0.0)
    weight: int = 1


@dataclass(frozen=True)
class Fault:
    """`at_seconds` counts from the start of the load."""

    number: int
    name: str
    target: str
    at_seconds: float
    lasts_seconds: float

    @property
    def kind(self) -> str:
        return f"{self.name} {self.target}"

    @property
    def ends_seconds(self) -> float:
        return self.at_seconds + self.lasts_seconds


def kinds(*, names: bool = True) -> tuple[Kind, ...]:
    """All possible faults in a fixed order. `names`: whether there is a name server to disturb."""
    # A stop of up to 9 s is longer than the relay's lease in a run, and may be longer than a Kafka consumer's session.
    # Servers are stopped for less time, as all processes wait for them.
    found = [Kind("kill", name) for name in PROCESSES]
    found += [Kind("terminate", name) for name in PROCESSES]
    found += [Kind("stop", name, (1.0, 4.0) if name in {"connect", "kafka"} else (1.0, 9.0)) for name in PROCESSES]
    found += [Kind("terminate backends", "postgres", weight=2), Kind("kill backend", "postgres")]
    found += [Kind("kill", "postgres"), Kind("restart", "postgres"), Kind("stop", "postgres", (1.0, 4.0))]
    found += [Kind("stop", "postgres backend", (1.0, 9.0))]
    for link in LINKS:
        found += [
            Kind("cut", f"link to {link}"),
            Kind("delay", f"link to {link}", (2.0, 6.0)),
            Kind("refuse", f"link to {link}", (1.0, 6.0)),
            Kind("swallow", f"link to {link}", (1.0, 6.0)),
        ]
    found += [Kind("drop", "slot"), Kind("undecodable record", "changes"), Kind("delete", "channel topic")]
    if names:
        found += [Kind("silence", "name server", (1.0, 6.0)), Kind("fail", "name server", (1.0, 6.0))]
    found += [Kind(CONTROL, "at all", weight=3)]
    return tuple(found)


def plan(seed: int, seconds: float, pause_seconds: float, chosen: Sequence[Kind] | None = None) -> tuple[Fault, ...]:
    """Faults for `seconds` of load, on average `pause_seconds` apart. All kinds happen before one is repeated.

    Faults may overlap, but not on the same target.
    """
    chance = random.Random(seed)
    deck: list[Kind] = []
    faults: list[Fault] = []
    free_at: dict[str, float] = {}
    at = LEAD_SECONDS
    while True:
        at += chance.uniform(0.25, 1.75) * pause_seconds
        if not deck:
            deck = [kind for kind in chosen or kinds() for _ in range(kind.weight)]
            chance.shuffle(deck)
        # The next fault whose target has none now. If there is none, this moment has no fault.
        turn = next((n for n, kind in enumerate(deck) if free_at.get(kind.target, 0.0) <= at), None)
        if turn is None:
            continue
        kind = deck[turn]
        lasts = chance.uniform(*kind.lasts)
        if at + lasts > seconds - TAIL_SECONDS:
            return tuple(faults)
        del deck[turn]
        faults.append(Fault(len(faults), kind.name, kind.target, round(at, 3), round(lasts, 3)))
        # A killed process gets time to restart, as a fault would otherwise find no process.
        free_at[kind.target] = at + lasts + 3.0
