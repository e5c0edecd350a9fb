"""The entry point of the api: `python -m services.api` runs one process with one event loop and a pool of threads."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

import click
import uvloop
from prometheus_client import CollectorRegistry

from services.api.composition import wire
from services.api.server import PortTakenError, check_free, serve
from services.api.settings import ApiSettings
from tidings.process import log
from tidings.process.settings import EXIT_CONFIGURATION, ConfigurationError, read_or_exit


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Serve the REST API. Settings come from the environment: docs/reference/settings.md."""
    settings = read_or_exit(ApiSettings)
    log.configure("api", level=settings.log_level, log_format=settings.log_format)
    closing = ExitStack()
    try:
        for listen in (settings.listen, settings.internal_listen):
            check_free(listen)
        status = uvloop.run(_serve(settings, closing))
    except (ConfigurationError, PortTakenError) as error:
        sys.stderr.write(f"{error}\n")
        status = EXIT_CONFIGURATION
    closing.close()
    # Server threads that still wait for a client do not keep the process alive.
    sys.stderr.flush()
    os._exit(status)


async def _serve(settings: ApiSettings, closing: ExitStack) -> int:
    api = wire(settings, CollectorRegistry(), closing)
    return await serve({settings.listen: api.public, settings.internal_listen: api.internal})


if __name__ == "__main__":
    main()
