"""A bare aiohttp loop on uvloop, without a database: the cost of the calls alone. A separate process, `drain` or
`hold`.

It reads one order per line, `{"urls": […], "concurrency": 200}`, and answers each with the times of its start and end.
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
    """Call all `urls`, at most `concurrency` at a time. Return the sizes of the answers."""
    sizes = []
    waiting = iter(urls)

    async def work() -> None:
        for url in waiting:
            async with session.post(url, data=BODY) as response:
                sizes.append(len(await response.read()))

    await asyncio.gather(*(work() for _ in range(min(concurrency, len(urls)))))
    return sizes


async def gather(session: aiohttp.ClientSession, urls: Sequence[str]) -> list[int]:
    """Call all `urls` at once with `asyncio.gather`."""

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
