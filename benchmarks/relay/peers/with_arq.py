"""arq on redis, aiohttp. `enqueue` or `work`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import aiohttp
import uvloop
from arq import create_pool  # type: ignore[import-not-found]
from arq.connections import RedisSettings  # type: ignore[import-not-found]
from arq.worker import Worker  # type: ignore[import-not-found]

from benchmarks.relay.peers import job as given


def settings() -> RedisSettings:
    return RedisSettings(host="127.0.0.1", port=given.redis_port(), max_connections=2000)


def enqueue() -> None:
    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(create_pool(settings()))

    async def put(jobs: list[dict[str, str]]) -> None:
        await asyncio.gather(*(pool.enqueue_job("call", **one, _job_id=one["id"]) for one in jobs))

    given.orders(put, loop)


async def call(context: dict[str, Any], id: str, delay: str, prompt: str) -> str:  # noqa: A002
    async with context["session"].post(given.address(id, delay), data=prompt) as response:
        return str(await response.text())


async def work() -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        worker = Worker(
            [call],
            redis_settings=settings(),
            max_jobs=given.concurrency(),
            poll_delay=0.1,
            ctx={"session": session},
            log_results=False,
        )
        await worker.async_run()


if __name__ == "__main__":
    match sys.argv[1]:
        case "enqueue":
            enqueue()
        case "work":
            uvloop.run(work())
