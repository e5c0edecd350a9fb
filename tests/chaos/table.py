"""`python -m tests.chaos.table REPORT...`: the recoveries of several runs as one table of docs/reference/guarantees.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from tests.chaos.plan import CONTROL, Fault
from tests.chaos.recovery import Recovery, Summary, summaries

HEAD = (
    "| fault | count | probe p50, s | probe worst, s | ready p50, s | ready worst, s |\n|---|---:|---:|---:|---:|---:|"
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("reports", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(reports: tuple[Path, ...]) -> None:
    """Print one table of all REPORTS, then a description of each run."""
    read = [json.loads(path.read_text()) for path in reports]
    click.echo(table(one for report in read for one in recoveries_of(report)))
    for report in read:
        asked, figures = report["asked"], report["figures"]
        click.echo(
            f"seed {asked['seed']}, {asked['seconds']:.0f} s, a fault every {asked['pause_seconds']:g} s:"
            f" {figures['faults done']} faults, {figures['faults not done']} not done,"
            f" {figures['submissions stored']} submissions, {figures['direct messages']} direct messages,"
            f" {len(report['violations'])} violations, quiet after {figures['seconds until all was quiet']} s"
        )


def recoveries_of(report: dict[str, Any]) -> Iterator[Recovery]:
    """The recoveries in a report that `report.write` has written."""
    for one in report["faults"]:
        yield Recovery(Fault(**one["fault"]), one["ready_seconds"], one["work_seconds"])


def table(found: Iterable[Recovery]) -> str:
    """Sorts the control last, as it is not a fault."""
    rows = sorted(summaries(found), key=lambda one: (one.kind.startswith(CONTROL), one.kind))
    return "\n".join((HEAD, *map(_row, rows)))


def _row(one: Summary) -> str:
    moments = (one.work_median, one.work_worst, one.ready_median, one.ready_worst)
    shown = " | ".join("-" if value is None else f"{value:.1f}" for value in moments)
    return f"| {one.kind} | {one.times} | {shown} |"


if __name__ == "__main__":
    main()
