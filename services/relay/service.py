"""The relay's composition: builds what one process consists of, runs its loops, and drains them."""

from __future__ import annotations

import asyncio
import signal
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from prometheus_client import REGISTRY
from structlog.stdlib import BoundLogger

from services.relay.authentication import Authenticator
from services.relay.bodies import Bodies
from services.relay.courier import Courier
from services.relay.ending_writer import EndingWriter
from services.relay.intake import Intake
from services.relay.janitor import Janitor
from services.relay.memory import Memory
from services.relay.metrics import RelayMetrics
from services.relay.pump import Pump
from services.relay.routes.deps import Deps
from services.relay.routes.router import Router
from services.relay.routes.server import build_runner
from services.relay.scheduler import Scheduler
from services.relay.settings import RelaySettings
from services.relay.store.chunks import Chunks
from services.relay.store.database import Database, Pool, new_pool
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
from services.relay.waking import Waking
from tidings.log import fault
from tidings.settings import split_listen

# The loops take one each, requests share the rest: more connections than cores gain nothing.
POOL_MAX = 12
# Another process's rotation of the signing keys counts here after so long.
KEYS_SECONDS = 2.0
JANITOR_SECONDS = 5.0


@dataclass(frozen=True)
class Service:
    """The parts of one process that have a life of their own, and the router that uses them."""

    pump: Pump
    intake: Intake
    scheduler: Scheduler
    janitor: Janitor
    courier: Courier
    signing_keys: SigningKeys
    router: Router
    log: BoundLogger


async def serve(settings: RelaySettings, vault: Vault, tls: ssl.SSLContext, log: BoundLogger) -> None:
    """Serve until SIGTERM or SIGINT, then drain: calls in flight get their time, what is accepted is committed."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    pool = new_pool(settings.database_url.get_secret_value(), connections_max=POOL_MAX)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(pool)
        service = build(settings, vault, tls, pool, log)
        stack.callback(service.courier.close)
        await _check_signing_keys(service, settings)
        runner = build_runner(service.router.answer, settings.body_bytes_max)
        await runner.setup()
        taking = asyncio.create_task(service.intake.run())
        working = [asyncio.create_task(loop) for loop in _loops(service)]
        host, port = split_listen(settings.listen)
        await web.TCPSite(runner, host, port, backlog=1024).start()
        log.info("listening", address=settings.listen)
        await stop.wait()
        await _end(working)
        await service.pump.drain()
        await runner.cleanup()
        await _end([taking])
    log.info("stopped")


def build(settings: RelaySettings, vault: Vault, tls: ssl.SSLContext, pool: Pool, log: BoundLogger) -> Service:
    """Wire everything. Nothing runs yet, and nothing was asked of the database."""
    metrics = RelayMetrics(REGISTRY)
    database = Database(pool)
    owner = uuid.uuid4()
    messages = Messages(database, vault, owner=owner, logs=settings.log_days > 0)
    signing_keys = SigningKeys(database, vault, _seed(settings))
    memory = Memory(settings.memory_bytes_max)
    bodies = Bodies(Chunks(database), settings.body_bytes_max, memory)
    courier = Courier(settings, bodies, tls, lambda: signing_keys.pair.current)
    waking = Waking()
    writer = EndingWriter(messages, bodies, metrics, log, wake=waking.wake, held=memory.answers)
    processes = Processes(database, owner=owner)
    pump = Pump(messages, processes, courier, writer, settings, metrics, log, waking=waking, memory=memory)
    window = settings.deduplication_seconds
    intake = Intake(messages, deduplication_seconds=window, wake=waking.wake)
    topics = Topics(database, vault)
    schedules = Schedules(database, vault, messages, topics, deduplication_seconds=window)
    scheduler = Scheduler(schedules, now=_now, fired=waking.wake, log=log)
    deps = Deps(
        settings=settings,
        authenticator=Authenticator(settings.token.get_secret_value(), Tokens(database).find, time.monotonic),
        intake=intake,
        bodies=bodies,
        memory=memory,
        messages=messages,
        views=MessageViews(database, vault),
        queues=Queues(database),
        flow_keys=FlowKeys(database),
        topics=topics,
        schedules=schedules,
        letters=Letters(database, vault, messages, deduplication_seconds=window),
        events=Events(database, vault),
        signing_keys=signing_keys,
        metrics=metrics,
        registry=REGISTRY,
        log=log,
        wake=waking.wake,
        abort=pump.abort,
        rescheduled=scheduler.wake,
        now=_now,
    )
    janitor = Janitor(database, settings)
    return Service(pump, intake, scheduler, janitor, courier, signing_keys, Router(deps), log)


def _loops(service: Service) -> list[Coroutine[Any, Any, None]]:
    return [
        service.pump.run(),
        service.scheduler.run(),
        _every("janitor", JANITOR_SECONDS, service.janitor.run_once, service.log),
        _every("signing_keys", KEYS_SECONDS, service.signing_keys.refresh, service.log),
    ]


async def _every(name: str, seconds: float, step: Callable[[], Awaitable[object]], log: BoundLogger) -> None:
    """Repeat `step`; a fault of it, such as a database that is away, is said and does not end the loop."""
    while True:
        try:
            await step()
        except Exception as error:  # noqa: BLE001  whatever it is, the next round may do
            log.error("loop_failed", loop=name, error=fault(error))
        await asyncio.sleep(seconds)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _check_signing_keys(service: Service, settings: RelaySettings) -> None:
    """Stored keys count, as they may have been rotated; an operator who changed the environment's is told so."""
    if await service.signing_keys.refresh() != _seed(settings):
        service.log.warning(
            "signing_keys_stored", detail="the environment's keys differ from the stored ones, which count"
        )


def _seed(settings: RelaySettings) -> KeyPair:
    return KeyPair(settings.current_signing_key.get_secret_value(), settings.next_signing_key.get_secret_value())


def _now() -> datetime:
    return datetime.now(UTC)
