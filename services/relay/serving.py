"""One process from start to end: it serves until it receives a signal, or until a loop ends, and then drains."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack

from aiohttp import web
from structlog.stdlib import BoundLogger

from services.relay.api.server import build_runner
from services.relay.engine.drain import CLEANUP_SECONDS, CLOSE_SECONDS, END_SECONDS
from services.relay.engine.loops import LoopEndedError, end_all, until_ended, within
from services.relay.listening import listen
from services.relay.service import Pools, Service, build, build_pools, seed
from services.relay.settings import RelaySettings
from services.relay.store.encryption import Encryption
from services.relay.watchdog import Watchdog

# Connections that wait to be accepted by the process.
BACKLOG = 1024


async def serve(
    settings: RelaySettings,
    encryption: Encryption,
    tls: ssl.SSLContext,
    sockets: Sequence[socket.socket],
    log: BoundLogger,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain: calls in flight get the drain time, and accepted messages are
    committed.

    Raises `LoopEndedError` and `CannotListenError`. In every case the process exits at most END_SECONDS after the drain
    time.
    """
    watchdog = Watchdog(settings.drain_seconds + END_SECONDS, log)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, watchdog.begin)
    try:
        async with AsyncExitStack() as stack:
            pools = build_pools(settings)
            stack.push_async_callback(_close, pools)
            service = build(settings, encryption, tls, pools, log)
            stack.callback(service.http.close)
            stack.callback(service.notices.close)
            # After any error raised from here on, the loops end before the connections they use are closed.
            stack.push_async_callback(end_all, service.loops, log)
            ended = await _run(service, settings, sockets, log, watchdog)
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
    watchdog: Watchdog,
) -> str | None:
    """Serve, then drain. Returns the name of the loop that ended by itself, if one did."""
    for pool in service.pools.all:
        await pool.open()
    await _check_signing_keys(service, settings, log)
    runner = build_runner(service.router.answer, settings.body_bytes_max)
    await runner.setup()
    try:
        listen(sockets, BACKLOG)
        for loop in service.loops:
            loop.start()
        for one in sockets:
            await web.SockSite(runner, one, backlog=BACKLOG).start()
        log.info("listening", address=settings.listen)
        ended = await until_ended(watchdog.begun, service.loops)
        watchdog.begin()
        await service.drain.run()
    finally:
        await within(runner.cleanup(), CLEANUP_SECONDS)
    return ended


async def _check_signing_keys(service: Service, settings: RelaySettings, log: BoundLogger) -> None:
    """The stored keys are used, as they may have been rotated. A warning tells an operator who changed the
    environment's keys.
    """
    if await service.signing_keys.refresh() != seed(settings):
        log.warning("signing_keys_stored", detail="the environment's keys differ from the stored ones, which count")


async def _close(pools: Pools) -> None:
    await asyncio.gather(*(pool.close(CLOSE_SECONDS) for pool in pools.all))
