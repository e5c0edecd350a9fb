"""`python -m stack`: the whole system on this machine. The Makefile's targets call it."""

from __future__ import annotations

import os
import signal
import sys

import click
from rich.console import Console

from stack.errors import StackError
from stack.home import Home, open_home
from stack.restart import PROCESSES, restart
from stack.screens import demonstrate, down, reset, status, up
from stack.supervisor import run as supervise


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run Tidings natively: Postgres, Kafka, Connect, all processes, without Docker. State is under .tidings/."""
    # Logs, Kafka's data and Connect's files contain client data; only their owner may read them.
    os.umask(0o077)


@main.command(hidden=True)
def run() -> None:
    """Own the stack until SIGTERM; started by the others."""
    sys.exit(supervise(_home(), os.environ))


@main.command("up")
def up_command() -> None:
    """Start everything in the background; returns when all is healthy."""
    home = _home()
    _or_exit(lambda: up(home, Console()))
    click.echo(f"up: api {home.url('api')}; for your shell: . {home.env_file}")


@main.command("down")
def down_command() -> None:
    """Stop everything."""
    _or_exit(lambda: click.echo("stopped" if down(_home()) else "nothing was running"))


@main.command("status")
def status_command() -> None:
    """Show what runs, where, and whether it is well."""
    sys.exit(status(_home(), Console()))


@main.command("logs")
@click.argument("process", default="")
@click.option("--lines", default=50, show_default=True)
def logs_command(process: str, lines: int) -> None:
    """Print the last log lines, of all processes or of PROCESS."""
    path = _home().log / "processes.log"
    found = path.read_text(errors="replace").splitlines() if path.exists() else []
    for line in [line for line in found if process in line.split("|", 1)[0]][-lines:]:
        click.echo(line)


@main.command("restart")
@click.argument("process", type=click.Choice(sorted(PROCESSES)))
def restart_command(process: str) -> None:
    """End PROCESS and start it again with the code as it is now; returns when it is healthy."""
    home = _home()
    _or_exit(lambda: restart(home, process))
    click.echo(f"restarted: {process}")


@main.command("reset")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def reset_command(yes: bool) -> None:  # noqa: FBT001  click's way
    """Stop everything and delete all data and secrets."""
    home = _home()
    if not yes:
        click.confirm(f"Delete everything under {home.directory}?", abort=True)
    others = f"deleted; {home.directory} contains other files, which are kept"
    _or_exit(lambda: click.echo("deleted" if reset(home) else others))


@main.command("demo")
@click.option("--prompt", default="a lighthouse that sends good news", show_default=True)
@click.option("--exit", "leave", is_flag=True, envvar="TIDINGS_DEMO_EXIT", help="Stop after the event.")
def demo_command(prompt: str, leave: bool) -> None:  # noqa: FBT001  click's way
    """Start everything, submit a prompt, print its completion event, and stay until Ctrl-C."""
    home, console = _home(), Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def demo() -> None:
        up(home, console)
        demonstrate(home, console, prompt)

    try:
        _or_exit(demo)
        if not leave:
            console.print("\nrunning; Ctrl-C ends it")
            signal.pause()
    except KeyboardInterrupt:
        console.print("\nstopping")
    finally:
        down(home)


def _home() -> Home:
    try:
        return open_home(os.environ)
    except StackError as error:
        sys.exit(f"error: {error}")


def _or_exit(action: object) -> None:
    try:
        action()  # type: ignore[operator]
    except StackError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
