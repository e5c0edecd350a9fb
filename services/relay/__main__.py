"""The relay's composition root: `python -m services.relay`."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
import uuid
from datetime import UTC, datetime

import click
import psycopg
import uvloop
from aiohttp import web
from prometheus_client import REGISTRY
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from services.relay.authentication import Authenticator
from services.relay.courier import Courier
from services.relay.intake import Intake
from services.relay.metrics import RelayMetrics
from services.relay.pump import Pump
from services.relay.routes.deps import Deps
from services.relay.routes.router import build_application
from services.relay.scheduler import Scheduler
from services.relay.schema import create_schema
from services.relay.settings import RelaySettings
from services.relay.store.database import Database
from services.relay.store.events import Events
from services.relay.store.flow_keys import FlowKeys
from services.relay.store.letters import Letters
from services.relay.store.message_views import MessageViews
from services.relay.store.messages import Messages
from services.relay.store.processes import Processes
from services.relay.store.queues import Queues
from services.relay.store.schedules import Schedules
from services.relay.store.signing_keys import KeyPair, SigningKeys
from services.relay.store.tokens import Tokens
from services.relay.store.topics import Topics
from services.relay.vault import Vault
from tidings import log
from tidings.settings import EXIT_CONFIGURATION, read_or_exit, split_listen

# The loops take one each, requests share the rest: more connections than cores gain nothing.
POOL_MAX = 12


async def run(settings: RelaySettings, vault: Vault) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    logger = log.get("relay")
    metrics = RelayMetrics(REGISTRY)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    pool: AsyncConnectionPool[AsyncConnection[object]] = AsyncConnectionPool(
        settings.database_url.get_secret_value(), min_size=4, max_size=POOL_MAX, timeout=10, open=False
    )
    async with pool:
        database = Database(pool)
        owner = uuid.uuid4()
        messages = Messages(database, vault, owner=owner)
        courier = Courier(settings)
        pump = Pump(messages, Processes(database, owner=owner), courier, settings, metrics, logger)
        intake = Intake(messages, deduplication_seconds=settings.deduplication_seconds, wake=pump.wake)
        schedules = Schedules(database, vault, messages, Topics(database, vault))
        scheduler = Scheduler(schedules, now=_now, fired=pump.wake, log=logger)
        deps = Deps(
            settings=settings,
            authenticator=Authenticator(settings.token.get_secret_value(), Tokens(database).find, time.monotonic),
            intake=intake,
            messages=messages,
            views=MessageViews(database, vault),
            queues=Queues(database),
            flow_keys=FlowKeys(database),
            topics=Topics(database, vault),
            schedules=schedules,
            letters=Letters(database, vault, messages),
            events=Events(database),
            signing_keys=SigningKeys(database, vault, _seed(settings)),
            metrics=metrics,
            registry=REGISTRY,
            log=logger,
            wake=pump.wake,
            abort=pump.abort,
            rescheduled=scheduler.wake,
            now=_now,
        )
        runner = web.AppRunner(build_application(deps), access_log=None, handle_signals=False)
        await runner.setup()
        host, port = split_listen(settings.listen)
        await web.TCPSite(runner, host, port, backlog=1024).start()
        pumping = asyncio.create_task(pump.run())
        taking = asyncio.create_task(intake.run())
        scheduling = asyncio.create_task(scheduler.run())
        logger.info("listening", address=settings.listen)
        await stop.wait()
        scheduling.cancel()
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)
        await pump.drain()
        await runner.cleanup()
        taking.cancel()
        await courier.close()
    logger.info("stopped")


def _seed(settings: RelaySettings) -> KeyPair:
    return KeyPair(settings.current_signing_key.get_secret_value(), settings.next_signing_key.get_secret_value())


def _now() -> datetime:
    return datetime.now(UTC)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Serve the QStash protocol, durably. Settings come from the environment: docs/reference/relay.md."""
    settings = read_or_exit(RelaySettings)
    log.configure("relay", level=settings.log_level, log_format=settings.log_format)
    try:
        vault = Vault(settings.encryption_keys.get_secret_value())
    except ValueError:
        sys.stderr.write("RELAY_ENCRYPTION_KEYS: each must be 32 random bytes in url-safe base64\n")
        raise SystemExit(EXIT_CONFIGURATION) from None
    try:
        create_schema(settings.database_url.get_secret_value())
    except psycopg.OperationalError as error:
        sys.stderr.write(f"the database does not answer: {error}\n")
        raise SystemExit(1) from None
    uvloop.run(run(settings, vault))


if __name__ == "__main__":
    main()
