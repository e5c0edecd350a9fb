"""The relay's figures (makespan, drain, held, publish, latency), each measured with its peers and floors in one run; and
memory, which has no peers.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import click

from benchmarks.figures import write
from benchmarks.relay import beside, drain, held, latency, makespan, memory, publish
from benchmarks.relay.contest import Contestant, Line, compete, plain
from benchmarks.relay.ground import QUICK, Ground, Scale, ground
from benchmarks.relay.ours import BATCHES, ONE_BY_ONE


@dataclass(frozen=True)
class Figure:
    contestants: Callable[[Ground], list[Contestant]]
    report: Callable[[list[Line], Ground], tuple[str, dict[str, object]]]


FIGURES = {
    "makespan": Figure(partial(makespan.contestants, sending=BATCHES), makespan.report),
    "makespan-single": Figure(partial(makespan.contestants, sending=ONE_BY_ONE), makespan.report),
    "drain": Figure(drain.contestants, drain.report),
    "held": Figure(held.contestants, held.report),
    "publish": Figure(publish.contestants, publish.report),
    "latency": Figure(latency.contestants, latency.report),
    "memory": Figure(memory.contestants, memory.report),
}
# Some 20 GB go through the database; `all` leaves it out.
APART = frozenset({"memory"})


@click.command()
@click.option("--figure", type=click.Choice([*FIGURES, "all"]), default="all", show_default=True)
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--quick", is_flag=True, help="Few calls, to test the benchmark itself. Results: relay-quick-*.")
@click.option("--only", multiple=True, help="A contestant's name; all of them by default.")
@click.option("--base", help="Compare our relay with that of this commit, without peers. Results: relay-base-*.")
@click.option("--seed", type=int, default=None, help="The seed of the random order, which the results contain.")
def main(figure: str, rounds: int, *, quick: bool, only: tuple[str, ...], base: str | None, seed: int | None) -> None:
    """Print one line per run and one table per figure. Write results/relay-<figure>.json."""
    chosen = [name for name in FIGURES if name not in APART] if figure == "all" else [figure]
    seed = random.SystemRandom().randrange(1 << 30) if seed is None else seed
    with ExitStack() as closing:
        here = closing.enter_context(ground(QUICK if quick else Scale()))
        tree = None if base is None else closing.enter_context(beside.checkout(base))
        for name in chosen:
            click.echo(f"{name}: {rounds} rounds")
            of_figure = FIGURES[name].contestants
            all_of_them = of_figure(here) if tree is None else beside.both(of_figure, here, tree)
            contestants = [one for one in all_of_them if not only or one.name.removesuffix(beside.BASE) in only]
            found = compete(contestants, rounds, random.Random(seed))
            text, aims = FIGURES[name].report(found, here) if tree is None else ("", beside.ratios(found))
            click.echo(text)
            for aim, value in aims.items():
                click.echo(f"{aim}: {value}")
            content = {
                "rounds": rounds,
                "seed": seed,
                "base": base,
                "scale": dataclasses.asdict(here.scale),
                "ratios": {aim: plain(value) for aim, value in aims.items()},
                "found": found,
            }
            click.echo(write(f"relay-{'quick-' if quick else ''}{'' if base is None else 'base-'}{name}", content))


if __name__ == "__main__":
    main()
