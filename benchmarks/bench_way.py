"""The whole way: from a client's submission to the message that a waiting client receives, and where the time goes.

Ours, and beside it in the same run what one writes instead: a plain Flask endpoint, a queue, a worker, and a client that
the queue tells.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import click

from benchmarks.figures import percentile, write
from benchmarks.relay.contest import Spread, plain, ratio, table
from benchmarks.relay.ground import QUICK, Ground, Scale, ground
from benchmarks.relay.peer import Peer
from benchmarks.relay.processor import cpu_seconds, load_average
from benchmarks.way import hops, peer, system
from benchmarks.way.picture import draw
from benchmarks.way.waiting import OfKafka, Waiting
from tests.process import ROOT
from tests.wait import until

DELAY_SECONDS = 0.05
CONNECTIONS = 64
WARM = 50
# So long after the last submission all messages must have come.
WAIT_SECONDS_MAX = 120.0
JVMS = frozenset({"kafka", "connect"})
FIGURES = ("p50_ms", "p90_ms", "p99_ms", "completions_per_second", "cpu_ms", "cpu_jvm_ms", "wal_bytes", "kafka_bytes")


@dataclass(frozen=True)
class LoadShape:
    """`per_second` 0: all at once."""

    name: str
    count: int
    per_second: int


SHAPES = {
    "10/s": LoadShape("10/s", 150, 10),
    "50/s": LoadShape("50/s", 750, 50),
    "200/s": LoadShape("200/s", 3_000, 200),
    "burst": LoadShape("burst", 5_000, 0),
}
QUICK_SHAPES = {"50/s": LoadShape("50/s", 100, 50), "burst": LoadShape("burst", 200, 0)}


@dataclass(frozen=True)
class Subject:
    """Something to send submissions to: ours or a peer."""

    url: str
    headers: Mapping[str, str]
    waiting: Waiting
    usage: Callable[[], dict[str, float]]
    written: Callable[[], dict[str, int]]
    system: system.System | None = None


@click.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--load", "loads", type=click.Choice([*SHAPES]), multiple=True, help="All by default.")
@click.option("--only", type=click.Choice(["ours", *(one.name for one in peer.PEERS)]), multiple=True)
@click.option("--quick", is_flag=True, help="A few submissions: whether it works. Kept as way-quick.")
@click.option("--seed", type=int, default=None, help="Of the random order; told in the results.")
def main(rounds: int, loads: tuple[str, ...], only: tuple[str, ...], *, quick: bool, seed: int | None) -> None:
    """Print a table for each load and write results/way.json and results/way.svg."""
    seed = random.SystemRandom().randrange(1 << 30) if seed is None else seed
    order = random.Random(seed)
    shapes = QUICK_SHAPES if quick else {name: SHAPES[name] for name in loads or SHAPES}
    found: list[dict[str, Any]] = []
    with ground(QUICK if quick else Scale()) as here:
        subjects = {"ours": partial(_ours, here)} | {one.name: partial(_peer, one, here) for one in peer.PEERS}
        chosen = [name for name in subjects if not only or name in only]
        for number in range(rounds):
            for name in order.sample(chosen, len(chosen)):
                found += _round(number, name, subjects[name], shapes)
    name = "way-quick" if quick else "way"
    ratios = {shape: _ratios(found, shape, chosen) for shape in shapes}
    for shape in shapes:
        click.echo(f"\n{shape}, the provider's {DELAY_SECONDS:g} s taken out")
        click.echo(table([line for line in found if line["load"] == shape], chosen, FIGURES))
        for said, value in ratios[shape].items():
            click.echo(f"{said}: {value}")
    spent = {shape: _spent(found, shape) for shape in shapes}
    if "ours" in chosen:
        for shape, of_hops in spent.items():
            click.echo(f"\nours at {shape}, milliseconds, medians of the rounds' means and p99")
            for hop, times in of_hops.items():
                click.echo(f"  {hop:40} {times['mean_ms']:8.1f} {times['p99_ms']:8.1f}")
    path = write(
        name,
        {
            "rounds": rounds,
            "seed": seed,
            "ratios": {
                shape: {name: plain(one) for name, one in of_shape.items()} for shape, of_shape in ratios.items()
            },
            "hops": spent,
            "found": found,
        },
    )
    if "ours" in chosen:
        path.with_suffix(".svg").write_text(draw({shape: _means(times) for shape, times in spent.items()}))
    click.echo(path)


def _round(
    number: int, name: str, subject: Callable[[], Any], shapes: Mapping[str, LoadShape]
) -> Iterator[dict[str, Any]]:
    """One subject, started anew, under each load in turn."""
    with subject() as started, started.waiting.running():
        _measure(started, LoadShape("warm", WARM, 25))
        for shape in shapes.values():
            line = {"round": number, "name": name, "load": shape.name, "load_average": load_average()}
            try:
                line |= _measure(started, shape)
            except Exception as error:  # noqa: BLE001  a fault of any kind is a result to be told
                line["void"] = f"{type(error).__name__}: {error}"[:300]
            told = {key: value for key, value in line.items() if key not in {"round", "name", "load", "hops", "usage"}}
            click.echo(f"  [{number + 1}] {name} {shape.name}: {told}")
            yield line


def _measure(subject: Subject, shape: LoadShape) -> dict[str, Any]:
    subject.waiting.clear()
    before, written = subject.usage(), subject.written()
    answer = _load(subject, shape)
    sent: dict[str, list[float]] = answer["sent"]
    if answer["faults"]:
        raise RuntimeError(f"{len(answer['faults'])} submissions failed, the first: {answer['faults'][0]}")
    until(lambda: len(subject.waiting.seen) >= len(sent), WAIT_SECONDS_MAX, every=0.05)
    seen, after, now = subject.waiting.seen, subject.usage(), subject.written()
    delays = [(seen[id_] - times[0] - DELAY_SECONDS) * 1000 for id_, times in sent.items()]
    used = {name: (after[name] - before[name]) / len(sent) * 1000 for name in after}
    line: dict[str, Any] = {
        "p50_ms": round(percentile(delays, 0.50), 1),
        "p90_ms": round(percentile(delays, 0.90), 1),
        "p99_ms": round(percentile(delays, 0.99), 1),
        "completions_per_second": round(
            len(sent) / (max(seen[id_] for id_ in sent) - min(times[0] for times in sent.values())), 1
        ),
        "twice": subject.waiting.twice,
        "cpu_ms": round(sum(value for name, value in used.items() if name not in JVMS), 3),
        "usage": {name: round(value, 3) for name, value in used.items()},
    }
    if subject.system is not None:
        line["cpu_jvm_ms"] = round(sum(used[name] for name in JVMS), 3)
        line["hops"] = hops.spent(hops.moments(subject.system, sent, seen, DELAY_SECONDS))
    return line | {f"{name}_bytes": round((now[name] - written[name]) / len(sent)) for name in now}


def _load(subject: Subject, shape: LoadShape) -> dict[str, Any]:
    order = {
        "url": subject.url,
        "headers": dict(subject.headers),
        "body": {"target": system.TARGET, "input": {"prompt": "x" * 900}},
        "count": shape.count,
        "per_second": shape.per_second,
        "connections": CONNECTIONS,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.way.load"],
        cwd=ROOT, input=json.dumps(order), capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


@contextmanager
def _ours(here: Ground) -> Iterator[Subject]:
    directory = here.directory / f"ours-{random.SystemRandom().randrange(1 << 30)}"
    directory.mkdir()
    directory.chmod(0o755)
    with system.running(directory, here.upstream.port, DELAY_SECONDS) as ours:
        headers = {"Authorization": f"Bearer {ours.home.secrets['api_key']}"}
        yield Subject(
            f"{ours.home.url('api')}/v1/submissions", headers, OfKafka(ours.bootstrap), ours.usage,
            ours.written_bytes, ours,
        )  # fmt: skip


@contextmanager
def _peer(one: Peer, here: Ground) -> Iterator[Subject]:
    with peer.running(one, here) as theirs:

        def usage() -> dict[str, float]:
            return {name: cpu_seconds([pid]) for name, pid in theirs.pids.items()}

        def written() -> dict[str, int]:
            return {"wal": system.wal_bytes(here.postgres.admin_url)}

        yield Subject(theirs.url, {}, theirs.waiting, usage, written)


def _ratios(found: list[dict[str, Any]], shape: str, chosen: list[str]) -> dict[str, Spread | None]:
    lines = [line for line in found if line["load"] == shape]
    figure = "completions_per_second" if shape == "burst" else "p50_ms"
    return {f"{figure} to {name}": ratio(lines, figure, "ours", name) for name in chosen if name != "ours"}


def _spent(found: list[dict[str, Any]], shape: str) -> dict[str, dict[str, float]]:
    lines = [line["hops"] for line in found if line["load"] == shape and line["name"] == "ours" and "hops" in line]
    return {
        hop: {
            figure: round(statistics.median(line[hop][figure] for line in lines), 1)
            for figure in ("mean_ms", "p50_ms", "p99_ms")
        }
        for hop in (hops.HOPS if lines else ())
    }


def _means(times: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {hop: one["mean_ms"] for hop, one in times.items()}


if __name__ == "__main__":
    main()
