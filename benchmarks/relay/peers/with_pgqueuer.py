"""pgqueuer: asyncpg pool, batches of 100, aiohttp. `install`, `enqueue` or `work`."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta

import aiohttp
import asyncpg  # type: ignore[import-not-found]
import uvloop
from pgqueuer import AsyncpgPoolDriver, Job, PgQueuer, Queries  # type: ignore[import-not-found]

from benchmarks.relay.peers import job as given


async def install() -> None:
    async with asyncpg.create_pool(given.database_url(), min_size=1, max_size=2) as pool:
        await Queries(AsyncpgPoolDriver(pool)).install()


def enqueue() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # the pool's constructor reads the current loop
    pool = loop.run_until_complete(_opened(given.database_url()))
    queries = Queries(AsyncpgPoolDriver(pool))

    async def put(jobs: list[dict[str, str]]) -> None:
        payloads = [json.dumps(one).encode() for one in jobs]
        await queries.enqueue(["call"] * len(jobs), payloads, [0] * len(jobs))

    given.orders(put, loop)


async def _opened(url: str) -> asyncpg.Pool:
    return await asyncpg.create_pool(url, min_size=4, max_size=16)


async def work() -> None:
    savers = await asyncpg.create_pool(given.database_url(), min_size=given.SAVERS, max_size=given.SAVERS)
    pool = await asyncpg.create_pool(given.database_url(), min_size=4, max_size=16)
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    pgq = PgQueuer(AsyncpgPoolDriver(pool))

    @pgq.entrypoint("call")  # type: ignore[untyped-decorator]
    async def call(job: Job) -> None:
        asked = json.loads(job.payload)
        url = given.address(asked["id"], asked["delay"])
        async with session.post(url, data=asked["prompt"]) as response:
            body = await response.text()
        if given.keeps():
            await savers.execute(given.insert(given.INSERT_ASYNCPG), asked["id"], body)

    await pgq.run(
        dequeue_timeout=timedelta(seconds=1), batch_size=100, max_concurrent_tasks=max(200, given.concurrency())
    )


if __name__ == "__main__":
    match sys.argv[1]:
        case "install":
            asyncio.run(install())
        case "enqueue":
            enqueue()
        case "work":
            uvloop.run(work())
