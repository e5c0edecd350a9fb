"""`python -m examples.provider`."""

from __future__ import annotations

import os
import sys

import click
import uvloop
from aiohttp import web

from examples.provider.instruction import Latency
from examples.provider.server import Provider
from tidings.process.files import raise_file_limit
from tidings.process.settings import split_listen


@click.command(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "PROVIDER"})
@click.option("--listen", default="127.0.0.1:8090", show_default=True, help="HOST:PORT")
@click.option("--public-url", default=None, help="Where clients find the pictures; http://LISTEN by default.")
@click.option("--latency-seconds", default=2.0, show_default=True, help="How long a call takes, the median.")
@click.option("--spread", default=0.0, show_default=True, help="0: always the median; else lognormal, e.g. 0.5.")
@click.option("--failure-rate", default=0.0, show_default=True, help="Share of calls that fail with 429, 500 or 503.")
@click.option("--seed", default=1, show_default=True, help="Of latencies and failures.")
def main(
    listen: str, public_url: str | None, latency_seconds: float, spread: float, failure_rate: float, seed: int
) -> None:
    """A stand-in for an AI provider. Each option is also a variable: PROVIDER_LATENCY_SECONDS and so on."""
    raise_file_limit()
    host, port = split_listen(listen)
    provider = Provider(
        Latency(latency_seconds, spread),
        failure_rate=failure_rate,
        seed=seed,
        public_url=public_url or f"http://{listen}",
    )
    uvloop.install()
    try:
        web.run_app(
            provider.application(),
            host=host,
            port=port,
            backlog=4096,
            access_log=None,
            print=None,
            handler_cancellation=True,
        )
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        sys.exit(f"PROVIDER_LISTEN: cannot listen on {listen}: {reason}")


if __name__ == "__main__":
    main()
