"""Send submissions at a steady rate, or all at once. Its own process: `python -m benchmarks.way.load`.

Reads one JSON order from stdin and writes one JSON answer to stdout:

    {"url": "http://…", "headers": {…}, "body": {…}, "count": 500, "per_second": 50, "connections": 64}
    {"sent": {"<id>": [sent, answered], …}, "faults": ["503", …]}

The times are epoch seconds. The rate is an open loop: a late answer does not delay the next submission.
`per_second` 0 means: as many at a time as there are connections.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp
import uvloop

ANSWER_SECONDS_MAX = 60.0


class Load:
    """One run: `sent` and `faults` are its answer."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.sent: dict[str, tuple[float, float]] = {}
        self.faults: list[str] = []
        self._order = order
        self._body = json.dumps(order["body"]).encode()

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(limit=self._order["connections"])
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
        headers = {"Content-Type": "application/json"} | self._order["headers"]
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
            if self._order["per_second"]:
                await self._steady(session)
            else:
                await self._burst(session)

    async def _steady(self, session: aiohttp.ClientSession) -> None:
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(self._order["count"]):
                await asyncio.sleep(max(0.0, begin + number / self._order["per_second"] - time.monotonic()))
                group.create_task(self._send(session))

    async def _burst(self, session: aiohttp.ClientSession) -> None:
        left = iter(range(self._order["count"]))

        async def send() -> None:
            for _ in left:
                await self._send(session)

        async with asyncio.TaskGroup() as group:
            for _ in range(self._order["connections"]):
                group.create_task(send())

    async def _send(self, session: aiohttp.ClientSession) -> None:
        began = time.time()
        try:
            async with session.post(self._order["url"], data=self._body) as response:
                content = await response.read()
                if response.status == 202:
                    self.sent[json.loads(content)["id"]] = (began, time.time())
                else:
                    self.faults.append(str(response.status))
        except (aiohttp.ClientError, TimeoutError) as error:
            self.faults.append(type(error).__name__)


def main() -> None:
    load = Load(json.loads(sys.stdin.read()))
    uvloop.run(load.run())
    print(json.dumps({"sent": load.sent, "faults": load.faults}))


if __name__ == "__main__":
    main()
