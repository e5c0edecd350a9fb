"""The composition root of the watcher: `python -m services.watcher`."""

from __future__ import annotations

import sys
import time

import click
from prometheus_client import REGISTRY

from services.watcher.broker import Broker
from services.watcher.connector import Connector, RegistrationRefusedError, configuration
from services.watcher.metrics import WatcherMetrics
from services.watcher.settings import WatcherSettings
from services.watcher.slot import Slot
from services.watcher.transactions import TransactionWatch
from services.watcher.watcher import Watcher
from tidings.database.queries import load_queries
from tidings.process import log
from tidings.process.health import serve_health
from tidings.process.settings import read_or_exit
from tidings.process.shutdown import Shutdown
from tidings.process.telemetry import Telemetry


def _watcher(settings: WatcherSettings) -> Watcher:
    values = {
        "TIDINGS_CDC_DATABASE_HOST": settings.database_host,
        "TIDINGS_CDC_DATABASE_PORT": str(settings.database_port),
        "TIDINGS_CDC_DATABASE_NAME": settings.database_name,
    }
    wanted = configuration(settings.connector_file, values) | settings.connector_tls()
    slot = Slot(
        settings.conninfo(),
        load_queries("services.watcher"),
        slot=wanted["slot.name"],
        publication=wanted["publication.name"],
    )
    password = settings.connect_password.get_secret_value() if settings.connect_password else None
    return Watcher(
        Connector(settings.connect_url, settings.connector_name, password),
        slot,
        wanted,
        clock=time.monotonic,
        telemetry=Telemetry(WatcherMetrics(REGISTRY), log.get("watcher")),
    )


def _transactions(settings: WatcherSettings) -> TransactionWatch:
    return TransactionWatch(
        Broker(settings.cluster),
        seconds_max=settings.hanging_seconds,
        clock=time.monotonic,
        registry=REGISTRY,
        log=log.get("watcher"),
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--once", is_flag=True, help="Register the connector, wait until it runs, and exit.")
@click.option("--wait-seconds", default=120.0, show_default=True, help="With --once: the maximum wait in seconds.")
def main(once: bool, wait_seconds: float) -> None:  # noqa: FBT001  click's way
    """Keep the Debezium connector registered and running. Settings come from the environment:
    docs/reference/settings.md.
    """
    settings = read_or_exit(WatcherSettings)
    log.configure("watcher", level=settings.log_level, log_format=settings.log_format)
    shutdown = Shutdown().install()
    watcher, transactions = _watcher(settings), _transactions(settings)
    checks = {
        "connector": lambda: watcher.connector_fault,
        "slot": lambda: watcher.slot_fault,
        "transactions": lambda: transactions.fault,
    }
    health = None if once else serve_health("WATCHER_LISTEN", settings.listen, checks)
    deadline = time.monotonic() + wait_seconds
    try:
        while not shutdown.requested():
            # Transactions first: while one hangs, Connect does not even respond.
            transactions.run_once()
            watcher.run_once()
            if once and watcher.fault is None:
                return
            if once and time.monotonic() > deadline:
                sys.exit(f"the connector does not run: {watcher.fault}")
            shutdown.wait(settings.interval_seconds)
    except RegistrationRefusedError as error:
        sys.exit(f"Connect rejects the connector: {error}")
    if health is not None:
        health.stop()


if __name__ == "__main__":
    main()
