"""The stand-in as a process: it raises its own limit of open files, and holds more calls than its inherited limit."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import requests

from stack.ports import free_ports
from tests.process import Process, started
from tests.wait import until

# Small enough for every run. The stand-in must hold up to 10,000.
CALLS = 1500
LATENCY_SECONDS = 12.0
# Fewer than the calls, and more than the open files of this process.
SOFT_LIMIT = 1024
SPARE = 200


@contextmanager
def soft_limit(files: int) -> Iterator[None]:
    """Set the limit of open files of this process and of those that it starts during the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _call_all(url: str) -> tuple[list[int], dict[str, int]]:
    """The statuses of the answers, and the stand-in's count when it had received every call."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": "Bearer x"}) as session:

        async def call(number: int) -> int:
            asked = {"latency_seconds": LATENCY_SECONDS, "call_id": f"held-{number}"}
            content = {"prompt": "a hive", "x_provider": asked}
            async with session.post(f"{url}/v1/images/generations", json=content) as answer:
                await answer.read()
                return answer.status

        async def all_received() -> dict[str, int]:
            while True:
                async with session.get(f"{url}/calls") as answer:
                    counted = dict(await answer.json())
                if counted["received"] == CALLS:
                    return counted
                await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(call(number)) for number in range(CALLS)]
        counted = await asyncio.wait_for(all_received(), 60)
        return list(await asyncio.wait_for(asyncio.gather(*tasks), 60)), counted


def test_it_holds_more_calls_than_its_inherited_limit_of_open_files(tmp_path: Path) -> None:
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    environment = {"PROVIDER_LISTEN": f"127.0.0.1:{port}"}
    process = Process("examples.provider", environment, tmp_path / "provider.log", ready_url=f"{url}/healthz")
    with soft_limit(SOFT_LIMIT), started(process):
        with soft_limit(CALLS + SPARE):
            statuses, counted = asyncio.run(_call_all(url))
        assert statuses == [200] * CALLS
        assert counted["answered"] == 0, "all were held at the same time"
        until(lambda: requests.get(f"{url}/calls", timeout=30).json()["answered"] == CALLS)
