"""The relay's composition: builds what one process consists of, and serves until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web
from prometheus_client import REGISTRY
from structlog.stdlib import BoundLogger

from services.relay.authentication import Authenticator
from services.relay.bodies import Bodies
from services.relay.calls import Calls
from services.relay.courier import Courier
from services.relay.database_clock import DatabaseClock
from services.relay.drain import CLEANUP_SECONDS, CLOSE_SECONDS, END_SECONDS, Drain
from services.relay.ending_writer import EndingWriter
from services.relay.intake import Intake
from services.relay.janitor import Janitor
from services.relay.leases import Leases
from services.relay.listening import listen
from services.relay.loops import FAULT_PAUSE_SECONDS, Loop, LoopEndedError, end_all, until_ended, within
from services.relay.metrics import RelayMetrics
from services.relay.pump import Pump
from services.relay.readiness import Readiness
from services.relay.routes.deps import Deps
from services.relay.routes.router import Router
from services.relay.routes.server import build_runner
from services.relay.scheduler import Scheduler
from services.relay.settings import RelaySettings
from services.relay.store.chunks import Chunks
from services.relay.store.claims import Claims
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
from services.relay.watchdog import Watchdog

# Requests, and the loops that nothing under way depends on: more connections than cores gain little.
API_CONNECTIONS_MAX = 10
# Claims, endings and the bodies of deliveries: requests, however many and slow, do not take these.
ENGINE_CONNECTIONS_MAX = 5
# Connections that wait to be accepted.
BACKLOG = 1024
# Another process's rotation of the signing keys counts here after so long.
KEYS_SECONDS = 2.0
JANITOR_SECONDS = 5.0
# Counting a long queue takes the database a while, and nobody scrapes more often.
GAUGE_SECONDS = 10.0
# Within this a call whose message was cancelled by another process is broken off.
CANCEL_CHECK_SECONDS = 0.5
SWEEP_SECONDS_MAX = 2.0


@dataclass(frozen=True)
class Pools:
    """The connections to the database, so divided that nobody waits for those of others: the lease has one of its own."""

    api: Pool
    engine: Pool
    lease: Pool

    @property
    def all(self) -> tuple[Pool, ...]:
        return self.api, self.engine, self.lease


@dataclass(frozen=True)
class Service:
    """The parts of one process that have a life of their own, its loops, and the router that uses them."""

    pools: Pools
    drain: Drain
    courier: Courier
    signing_keys: SigningKeys
    loops: Sequence[Loop]
    router: Router


async def serve(
    settings: RelaySettings, vault: Vault, tls: ssl.SSLContext, sockets: Sequence[socket.socket], log: BoundLogger
) -> None:
    """Serve until SIGTERM or SIGINT, then drain: calls in flight get their time, what is accepted is committed.

    Raises `LoopEndedError` and `CannotListenError`. However it ends, the process is gone END_SECONDS after the drain time.
    """
    watchdog = Watchdog(settings.drain_seconds + END_SECONDS, log)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, watchdog.begin)
    try:
        async with AsyncExitStack() as stack:
            pools = _pools(settings)
            stack.push_async_callback(_close, pools)
            service = build(settings, vault, tls, pools, log)
            stack.callback(service.courier.close)
            # Whatever is raised from here on: the loops have ended before the connections they use are closed.
            stack.push_async_callback(end_all, service.loops, log)
            ended = await _run(service, settings, sockets, log, stack, watchdog)
    finally:
        watchdog.begin()
    if ended is not None:
        raise LoopEndedError(f"the loop {ended} ended")
    log.info("stopped")


async def _run(
    service: Service,
    settings: RelaySettings,
    sockets: Sequence[socket.socket],
    log: BoundLogger,
    stack: AsyncExitStack,
    watchdog: Watchdog,
) -> str | None:
    """Serve, and drain; the loop that ended by itself, if that is why."""
    for pool in service.pools.all:
        await pool.open()
    await _check_signing_keys(service, settings, log)
    runner = build_runner(service.router.answer, settings.body_bytes_max)
    await runner.setup()
    stack.push_async_callback(_clean_up, runner)
    listen(sockets, BACKLOG)
    for loop in service.loops:
        loop.start()
    for one in sockets:
        await web.SockSite(runner, one, backlog=BACKLOG).start()
    log.info("listening", address=settings.listen)
    ended = await until_ended(watchdog.begun, service.loops)
    watchdog.begin()
    await service.drain.run()
    return ended


def build(settings: RelaySettings, vault: Vault, tls: ssl.SSLContext, pools: Pools, log: BoundLogger) -> Service:
    """Wire everything. Nothing runs yet, and nothing was asked of the database."""
    metrics = RelayMetrics(REGISTRY)
    api, engine = Database(pools.api), Database(pools.engine)
    owner, logs, window = uuid.uuid4(), settings.log_days > 0, settings.deduplication_seconds
    messages = Messages(api, vault, owner=owner, logs=logs)
    claiming = Messages(engine, vault, owner=owner, logs=logs)
    signing_keys = SigningKeys(api, vault, _seed(settings))
    carried = Bodies(Chunks(engine), settings.body_bytes_max)
    courier = Courier(settings, carried, tls, lambda: signing_keys.pair.current)
    waking, calls, clock = Waking(), Calls(), DatabaseClock()
    writer = EndingWriter(claiming, carried, metrics, log, wake=waking.wake, now=clock.now)
    pump = Pump(claiming, courier, writer, calls, clock, settings, metrics, log, waking=waking)
    leases = Leases(
        Processes(Database(pools.lease), owner=owner),
        Claims(engine, vault, owner=owner, logs=logs),
        calls,
        writer,
        clock,
        metrics,
        log,
        lease_seconds=settings.lease_seconds,
        fail=pump.fail,
        given_up=waking.wake,
    )
    readiness = Readiness(settings.lease_seconds, lambda: leases.renewed, writer.unwritten_since)
    intake = Intake(messages, deduplication_seconds=window, wake=waking.wake)
    topics = Topics(api, vault)
    schedules = Schedules(api, vault, messages, topics, deduplication_seconds=window)
    scheduler = Scheduler(schedules, now=_now, fired=waking.wake, log=log)
    deps = Deps(
        settings=settings,
        authenticator=Authenticator(settings.token.get_secret_value(), Tokens(api).find, time.monotonic),
        intake=intake,
        bodies=Bodies(Chunks(api), settings.body_bytes_max),
        messages=messages,
        views=MessageViews(api, vault),
        queues=Queues(api),
        flow_keys=FlowKeys(api),
        topics=topics,
        schedules=schedules,
        letters=Letters(api, vault, messages, deduplication_seconds=window),
        events=Events(api, vault),
        signing_keys=signing_keys,
        metrics=metrics,
        registry=REGISTRY,
        log=log,
        wake=waking.wake,
        abort=calls.abort,
        rescheduled=scheduler.wake,
        faults=readiness.faults,
        now=_now,
    )

    async def claim() -> None:
        await pump.round()
        readiness.claimed()

    lease_seconds = settings.lease_seconds
    claims = Loop("claim", claim, log)
    finish = Loop("finish", writer.run_once, log)
    carrying = [
        finish,
        Loop("heartbeat", leases.beat_once, log, every=lease_seconds / 3, again=FAULT_PAUSE_SECONDS),
        Loop("cancel_check", leases.cancel_once, log, every=CANCEL_CHECK_SECONDS),
        Loop("intake", intake.run, log),
    ]
    others = [
        Loop("tend", leases.tend_once, log, every=min(SWEEP_SECONDS_MAX, lease_seconds / 3), again=FAULT_PAUSE_SECONDS),
        Loop("scheduler", scheduler.run, log),
        Loop("janitor", Janitor(api, settings).run_once, log, every=JANITOR_SECONDS),
        Loop("signing_keys", signing_keys.refresh, log, every=KEYS_SECONDS),
        Loop("gauge", lambda: _measure(messages, metrics), log, every=GAUGE_SECONDS),
    ]
    drain = Drain(pump, leases, calls, writer, claims, others, log, seconds=settings.drain_seconds)
    return Service(pools, drain, courier, signing_keys, [claims, *carrying, *others], Router(deps))


def _pools(settings: RelaySettings) -> Pools:
    url = settings.database_url.get_secret_value()
    return Pools(
        new_pool(url, connections_max=API_CONNECTIONS_MAX),
        new_pool(url, connections_max=ENGINE_CONNECTIONS_MAX),
        new_pool(url, connections_max=1, timeout_seconds=settings.lease_seconds / 3),
    )


async def _close(pools: Pools) -> None:
    await asyncio.gather(*(pool.close(CLOSE_SECONDS) for pool in pools.all))


async def _clean_up(runner: web.ServerRunner) -> None:
    await within(runner.cleanup(), CLEANUP_SECONDS)


async def _measure(messages: Messages, metrics: RelayMetrics) -> None:
    depth = await messages.depth()
    metrics.waiting.set(depth["waiting"])
    metrics.active.set(depth["active"])
    metrics.oldest.set(depth["oldest"])
    metrics.cooling.set(depth["cooling"])


async def _check_signing_keys(service: Service, settings: RelaySettings, log: BoundLogger) -> None:
    """Stored keys count, as they may have been rotated; an operator who changed the environment's is told so."""
    if await service.signing_keys.refresh() != _seed(settings):
        log.warning("signing_keys_stored", detail="the environment's keys differ from the stored ones, which count")


def _seed(settings: RelaySettings) -> KeyPair:
    return KeyPair(settings.current_signing_key.get_secret_value(), settings.next_signing_key.get_secret_value())


def _now() -> datetime:
    return datetime.now(UTC)
