"""The processor time of one attempt by the relay's `HttpAttempt`, without a database, beside a bare aiohttp POST.

`python -m benchmarks.http_attempt` prints medians of interleaved rounds. The destination is a separate process, so only
the caller's time is counted.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import click
import uvloop
from aiohttp import web
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from services.relay.egress.http.tls import tls_context
from services.relay.engine.bodies import Bodies
from services.relay.engine.http_attempt import HttpAttempt
from services.relay.message import Claimed
from services.relay.settings import RelaySettings
from services.relay.store.chunks import Chunks
from services.relay.store.database import Database

# The number of connections that the relay opens at once.
AT_ONCE = 100
# The form of an AI provider's answer, with its headers.
ANSWER = json.dumps({"id": "chatcmpl-1", "choices": [{"message": {"content": "x" * 1200}}]}).encode()


def message(url: str) -> Claimed:
    """A claimed message with the headers of the article's example."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    body = json.dumps({"model": "m", "prompt": "p" * 400}).encode()
    return Claimed(
        id="msg_0123456789abcdef0123456789abcdef",
        kind="message",
        protocol=2,
        url=url,
        method="POST",
        headers={"Content-Type": "application/json", "Authorization": "Bearer sk-0123456789"},
        body=body,
        body_size=len(body),
        retries_max=3,
        timeout_ms=7_200_000,
        on_unknown="retry",
        caller_ip="127.0.0.1",
        created_at=moment,
        not_before=moment,
        retried=0,
        started_at=moment,
    )


def made_http() -> HttpAttempt:
    """An `HttpAttempt` that never uses its database, as no body is large. Needs a running event loop."""
    settings = RelaySettings.model_validate(
        {
            "RELAY_DATABASE_URL": "postgresql://unused",
            "QSTASH_TOKEN": "t",
            "QSTASH_CURRENT_SIGNING_KEY": "sig_" + "c" * 30,
            "QSTASH_NEXT_SIGNING_KEY": "sig_" + "n" * 30,
            "RELAY_ENCRYPTION_KEYS": "k",
            "RELAY_ALLOW_PRIVATE": "127.0.0.0/8",
        }
    )
    pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool("", open=False)
    bodies = Bodies(Chunks(Database(pool)), settings.body_bytes_max)
    return HttpAttempt(settings, bodies, tls_context(None), settings.current_signing_key.get_secret_value)


async def _serve() -> None:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=ANSWER, content_type="application/json", headers={"X-Request-Id": "r" * 20})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    [address] = runner.addresses
    sys.stdout.write(f"{address[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def _timed(call: Callable[[], Awaitable[None]], count: int) -> float:
    """This process's processor time per call, in microseconds, over `count` calls, AT_ONCE of them concurrently."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await call()

    started = time.process_time()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return (time.process_time() - started) / count * 1e6


async def _measure(port: int, count: int, rounds: int) -> dict[str, float]:
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    claimed = message(url)
    http = made_http()
    found: dict[str, list[float]] = {"http": [], "bare": []}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def bare() -> None:
            async with session.post(url, data=claimed.body, headers=claimed.headers) as response:
                await response.read()

        async def ours() -> None:
            answer = await http.make(claimed, int(time.time()))
            assert answer.status == 200, answer.error

        for _ in range(rounds):
            found["http"].append(await _timed(ours, count))
            found["bare"].append(await _timed(bare, count))
    http.close()
    return {name: statistics.median(values) for name, values in found.items()}


async def _main(count: int, rounds: int) -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.http_attempt", "--serve", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        port = int(await server.stdout.readline())
        medians = await _measure(port, count, rounds)
    finally:
        server.kill()
        await server.wait()
    for name, microseconds in medians.items():
        click.echo(f"{name}: {microseconds:.0f} us of processor time a call (median of {rounds} rounds of {count})")


@click.command()
@click.option("--serve", is_flag=True, help="Run the destination.")
@click.option("--count", default=3000)
@click.option("--rounds", default=5)
def main(*, serve: bool, count: int, rounds: int) -> None:
    """Compare the processor time of an attempt with that of a bare aiohttp POST."""
    uvloop.run(_serve() if serve else _main(count, rounds))


if __name__ == "__main__":
    main()
