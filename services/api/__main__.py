"""The api's entry: `python -m services.api` serves the application with granian, one process, several threads."""

from __future__ import annotations

import sys

import click
from granian.constants import Interfaces
from granian.server import Server

from services.api.settings import ApiSettings
from tidings.files import raise_file_limit
from tidings.settings import EXIT_CONFIGURATION, ConfigurationError, read_or_exit, split_listen
from tidings.targets import load_targets

# A second worker was slower than one on two cores.
WORKERS = 1
DRAIN_SECONDS = 20


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Serve the REST API. Settings come from the environment: docs/ARCHITECTURE.md."""
    settings = read_or_exit(ApiSettings)
    try:
        load_targets(settings.targets_file)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(EXIT_CONFIGURATION) from None
    raise_file_limit()
    host, port = split_listen(settings.listen)
    Server(
        "services.api.composition:build",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        factory=True,
        workers=WORKERS,
        blocking_threads=settings.threads,
        backlog=1024,
        log_access=False,
        websockets=False,
        respawn_failed_workers=True,
        workers_kill_timeout=DRAIN_SECONDS,
    ).serve()


if __name__ == "__main__":
    main()
