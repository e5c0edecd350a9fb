"""procrastinate: its asyncio worker on psycopg's pool, aiohttp. `install`, `enqueue` or `work`."""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import uvloop
from procrastinate import App, PsycopgConnector  # type: ignore[import-not-found]
from psycopg_pool import AsyncConnectionPool

from benchmarks.relay.peers import job as given


def application() -> App:
    return App(connector=PsycopgConnector(conninfo=given.database_url(), min_size=4, max_size=16))


async def install() -> None:
    app = application()
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


def enqueue() -> None:
    loop = asyncio.new_event_loop()
    app = application()
    loop.run_until_complete(app.open_async())
    deferrer = app.configure_task("call", queue="calls")

    async def put(jobs: list[dict[str, str]]) -> None:
        if len(jobs) == 1:
            await deferrer.defer_async(**jobs[0])
        else:
            await deferrer.batch_defer_async(*jobs)

    given.orders(put, loop)


async def work() -> None:
    savers = AsyncConnectionPool(
        given.database_url(), min_size=given.SAVERS, max_size=given.SAVERS, kwargs={"autocommit": True}, open=False
    )
    await savers.open(wait=True)
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    app = application()

    @app.task(name="call", queue="calls")  # type: ignore[untyped-decorator]
    async def call(id: str, delay: str, prompt: str) -> None:  # noqa: A002
        async with session.post(given.address(id, delay), data=prompt) as response:
            body = await response.text()
        if given.keeps():
            async with savers.connection() as connection:
                await connection.execute(given.insert(given.INSERT_PSYCOPG), (id, body))

    async with app.open_async():
        await app.run_worker_async(queues=["calls"], concurrency=given.concurrency(), fetch_job_polling_interval=0.5)


if __name__ == "__main__":
    match sys.argv[1]:
        case "install":
            asyncio.run(install())
        case "enqueue":
            enqueue()
        case "work":
            uvloop.run(work())
