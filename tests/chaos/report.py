"""The report of a run, for people and for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.calls import repeated
from tests.chaos.evidence import Evidence
from tests.chaos.ledger import PROMISES, Violation
from tests.chaos.limits import most_at_once
from tests.chaos.plan import CONTROL
from tests.chaos.recovery import Recovery, recoveries, summaries
from tests.chaos.run import Run

SHOWN_MAX = 12


def show(run: Run, violations: Sequence[Violation], console: Console) -> None:
    table = Table("fault", "times", "ready again p50", "worst", "probe told p50", "worst")
    for one in summaries(recoveries(run.evidence)):
        moments = (one.ready_median, one.ready_worst, one.work_median, one.work_worst)
        table.add_row(one.kind, str(one.times), *map(_seconds, moments))
    console.print(table)
    failed = [one for one in run.done if one.error is not None]
    for done in failed:
        console.print(f"not done: {done.fault.kind} at {done.fault.at_seconds:.1f} s: {done.error}", highlight=False)
    broken = Counter(violation.promise for violation in violations)
    promises = Table("promise", "violations")
    for promise in PROMISES:
        promises.add_row(promise, f"[red]{broken[promise]}[/]" if broken[promise] else "[green]0[/]")
    console.print(promises)
    for promise in broken:
        found = [violation.what for violation in violations if violation.promise == promise]
        for what in found[:SHOWN_MAX]:
            console.print(f"[red]{promise}[/]: {what}", highlight=False)
        if len(found) > SHOWN_MAX:
            console.print(f"{promise}: {len(found) - SHOWN_MAX} more", highlight=False)
    for name, figure in figures(run).items():
        console.print(f"{name:<40} {figure}", highlight=False)


def figures(run: Run) -> dict[str, object]:
    evidence = run.evidence
    outcomes = Counter(row.outcome or "none" for row in evidence.stored)
    peaks: Counter[str] = Counter()
    for sample in evidence.samples:
        peaks[sample.process] = max(peaks[sample.process], sample.memory_bytes // 2**20)
    return {
        "faults done": sum(fault.name != CONTROL for fault in evidence.faults),
        "faults not done": sum(one.error is not None for one in run.done),
        "submissions stored": len(evidence.stored),
        "outcomes": dict(outcomes),
        "direct messages": len(evidence.direct),
        "most calls at a time": {
            limit.name: most_at_once(a for a in evidence.arrivals if a.limit == limit.name) for limit in evidence.limits
        },
        "calls of unknown fate, marked": repeated(evidence),
        "results told again by the reconciler": sum(row.nudges for row in evidence.stored),
        "seconds until all was quiet": round(run.rest_seconds, 1),
        "the load's counts": run.counts,
        "queries to the name server": run.queries,
        "most memory, MiB": dict(peaks),
    }


def write(path: Path, run: Run, violations: Sequence[Violation], asked: dict[str, object]) -> None:
    found: list[Recovery] = recoveries(run.evidence)
    content = {
        "asked": asked,
        "figures": figures(run),
        "violations": [asdict(violation) for violation in violations],
        "recoveries": [asdict(summary) for summary in summaries(found)],
        "faults": [asdict(one) for one in found],
        "not done": [asdict(done) for done in run.done if done.error is not None],
    }
    path.write_text(json.dumps(content, indent=1))


def write_evidence(path: Path, evidence: Evidence) -> None:
    """All evidence, for the analysis of a broken promise."""
    path.write_text(json.dumps(asdict(evidence), indent=1, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    return sorted(map(str, value)) if isinstance(value, frozenset) else str(value)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
