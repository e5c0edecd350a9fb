"""A bare aiohttp loop without a database, on uvloop: what the calls alone cost. Its own process: `drain` or `hold`.

It reads orders `{"urls": […], "concurrency": 200}` a line and answers each with when it began and ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence

import aiohttp
import uvloop

BODY = '{"prompt": "' + "x" * 985 + '"}'


async def run(session: aiohttp.ClientSession, urls: Sequence[str], concurrency: int) -> list[int]:
    """Call them all, at most so many at a time; the sizes of the answers."""
    sizes = []
    waiting = iter(urls)

    async def work() -> None:
        for url in waiting:
            async with session.post(url, data=BODY) as response:
                sizes.append(len(await response.read()))

    await asyncio.gather(*(work() for _ in range(min(concurrency, len(urls)))))
    return sizes


async def gather(session: aiohttp.ClientSession, urls: Sequence[str]) -> list[int]:
    """All at once, as one would write it."""

    async def call(url: str) -> int:
        async with session.post(url, data=BODY) as response:
            return len(await response.read())

    return await asyncio.gather(*(call(url) for url in urls))


async def main() -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600)) as session:
        print(json.dumps({"ready": True}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            concurrency = order["concurrency"]
            began = time.time()
            if concurrency is None:
                sizes = await gather(session, order["urls"])
            else:
                sizes = await run(session, order["urls"], concurrency)
            print(json.dumps({"began": began, "ended": time.time(), "answers": len(sizes)}), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
