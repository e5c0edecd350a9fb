"""`python -m tests.chaos`: the whole system under load and faults; the exit status is 1 when a promise is broken."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from tests.chaos.ledger import broken
from tests.chaos.plan import Kind, kinds, plan
from tests.chaos.report import show, write, write_evidence
from tests.chaos.run import run
from tests.chaos.system import System, new_system


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", default=60.0, show_default=True, help="How long the load lasts.")
@click.option("--seed", default=1, show_default=True, help="Of the plan and the load.")
@click.option("--pause-seconds", default=2.0, show_default=True, help="Between two faults, in the mean.")
@click.option("--only", multiple=True, help="Kinds of faults that contain this text; all by default.")
@click.option("--report", type=click.Path(path_type=Path), help="Where the report is written, as JSON.")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="A folder for logs and report of a failure; a new one by default."
)
def main(
    seconds: float, seed: int, pause_seconds: float, only: tuple[str, ...], report: Path | None, keep: Path | None
) -> None:
    """Cause faults in the whole system at random moments under load, then check whether every promise was kept.

    It starts its own stack on free ports and in its own folder. The kinds of faults are those of tests/chaos/plan.py.
    """
    # A shell ignores Ctrl-C for background processes. Either signal stops the system before the exit.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    console = Console()
    asked = {"seconds": seconds, "seed": seed, "pause_seconds": pause_seconds, "only": only}
    with tempfile.TemporaryDirectory(prefix="tidings-chaos-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        began = time.monotonic()
        with new_system(directory) as system, _kept_on_failure(system, keep, console) as kept:
            console.print(f"started in {time.monotonic() - began:.0f} s", highlight=False)
            names = system.naming.server is not None
            if not names:
                console.print("NOT TESTED: faults of the name server, which need root", highlight=False)
            faults = plan(seed, seconds, pause_seconds, _chosen(only, names))
            console.print(f"seed {seed}: {len(faults)} faults in {seconds:.0f} s", highlight=False)
            done = run(system, faults, seconds, seed, lambda text: console.print(text, highlight=False, markup=False))
            violations = broken(done.evidence)
            show(done, violations, console)
            if report is not None:
                write(report, done, violations, asked)
            if violations:
                folder = kept()
                write(folder / "report.json", done, violations, asked)
                write_evidence(folder / "evidence.json", done.evidence)
    sys.exit(1 if violations else 0)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Handle the first signal only: a second one, which `make` passes on, would interrupt the stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _chosen(only: tuple[str, ...], names: bool) -> tuple[Kind, ...]:
    every = kinds(names=names)
    found = tuple(kind for kind in every if not only or any(text in f"{kind.name} {kind.target}" for text in only))
    if not found:
        raise click.BadParameter("no kind of fault contains it", param_hint="--only")
    return found


@contextmanager
def _kept_on_failure(system: System, keep: Path | None, console: Console) -> Iterator[Callable[[], Path]]:
    """Called when a promise is broken or the run fails: keep the logs, and print where they are."""

    def kept() -> Path:
        folder = keep or Path(tempfile.mkdtemp(prefix="tidings-chaos-logs-"))
        _keep(system, folder)
        console.print(f"logs: {folder}", highlight=False, soft_wrap=True)
        return folder

    try:
        yield kept
    except BaseException:
        # Also for a signal: the user who limits the duration needs to know which condition was not met.
        kept()
        raise


def _keep(system: System, keep: Path) -> None:
    """Copy the logs, as the stack's folder is deleted afterwards."""
    home = system.stack.home
    shutil.copytree(home.log, keep / "log", dirs_exist_ok=True)
    for log in (
        home.directory / "kafka" / "kafka.log",
        home.directory / "connect" / "connect.log",
        home.postgres / "postgres.log",
    ):
        if log.exists():
            shutil.copy(log, keep / log.name)


if __name__ == "__main__":
    main()
