"""Our relay as a process with its own database, and the requests of its clients: publish, get a message, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from cryptography.fernet import Fernet
from yarl import URL

from benchmarks.relay.ground import Ground
from stack.ports import free_ports
from tests.process import Process, started

TOKEN = "benchmark-token"
ASKERS = 16


@dataclass(frozen=True)
class Sending:
    """The messages or jobs per request, and the concurrent requests: the same for our relay and for its peers."""

    batch: int
    senders: int


# With four requests at once, the server has work while one batch waits for its commit.
BATCHES = Sending(batch=100, senders=4)
ONE_BY_ONE = Sending(batch=1, senders=16)


@dataclass(frozen=True)
class Ours:
    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def relay(ground: Ground, **settings: str) -> Iterator[Ours]:
    """One relay with default settings, except `settings` and those that a test on loopback needs."""
    [port] = free_ports(1)
    with ground.postgres.database(template="template1") as database:
        environment = {
            "RELAY_DATABASE_URL": ground.postgres.url(database),
            "RELAY_LISTEN": f"127.0.0.1:{port}",
            "QSTASH_TOKEN": TOKEN,
            "QSTASH_CURRENT_SIGNING_KEY": "sig_current_key_of_the_benchmark_0123",
            "QSTASH_NEXT_SIGNING_KEY": "sig_next_key_of_the_benchmark_012345",
            "RELAY_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
            "RELAY_ALLOW_PRIVATE": "127.0.0.0/8",
            "RELAY_KEEP_SECONDS": "3600",  # so that each message can be requested after the run
            "RELAY_DRAIN_SECONDS": "1",
            "TIDINGS_LOG_LEVEL": "WARNING",
        }
        log = ground.directory / f"relay-{port}.log"
        ready_url = f"http://127.0.0.1:{port}/readyz"
        process = Process("services.relay", environment | settings, log, ready_url=ready_url, tree=ground.tree)
        with started(process):
            yield Ours(port, process.pid)


@asynccontextmanager
async def client(ours: Ours) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(ours.url, headers=headers, timeout=timeout) as session:
        yield session


async def publish(
    session: aiohttp.ClientSession, messages: Sequence[dict[str, Any]], sending: Sending = BATCHES
) -> list[str]:
    """Publish by `/v2/batch`, or by `/v2/publish` when a batch is one message. Return ids in the order of `messages`."""
    batches = [messages[start : start + sending.batch] for start in range(0, len(messages), sending.batch)]
    found: list[list[str]] = [[] for _ in batches]
    waiting = iter(range(len(batches)))

    async def work() -> None:
        for number in waiting:
            found[number] = await (
                _one(session, batches[number][0]) if sending.batch == 1 else _many(session, batches[number])
            )

    await asyncio.gather(*(work() for _ in range(sending.senders)))
    return [id_ for batch in found for id_ in batch]


async def _many(session: aiohttp.ClientSession, messages: Sequence[dict[str, Any]]) -> list[str]:
    async with session.post("/v2/batch", data=orjson.dumps(messages)) as response:
        answer = orjson.loads(await response.read())
        assert response.status == 200, f"{response.status}: {str(answer)[:300]}"
        return [item["messageId"] for item in answer]


async def _one(session: aiohttp.ClientSession, message: dict[str, Any]) -> list[str]:
    url = URL(f"/v2/publish/{message['destination']}", encoded=True)  # already encoded
    async with session.post(url, data=message["body"], headers=message["headers"]) as response:
        answer = orjson.loads(await response.read())
        assert response.status == 200, f"{response.status}: {str(answer)[:300]}"
        return [answer["messageId"]]


async def states(session: aiohttp.ClientSession, ids: Sequence[str]) -> dict[str, str]:
    """The states from `GET /v2/messages/{id}`, by id; `missing` for a 404."""
    found: dict[str, str] = {}
    waiting = iter(ids)

    async def work() -> None:
        for id_ in waiting:
            async with session.get(f"/v2/messages/{id_}") as response:
                content = orjson.loads(await response.read())
                found[id_] = "missing" if response.status == 404 else str(content["state"]).lower()

    await asyncio.gather(*(work() for _ in range(ASKERS)))
    return found


async def all_delivered(
    session: aiohttp.ClientSession, ids: Sequence[str], seconds: float, *, every: float = 0.02
) -> None:
    """Wait until all of `ids` are delivered. Raises `TimeoutError` with the number of those that are not."""
    left = list(ids)
    deadline = asyncio.get_running_loop().time() + seconds
    while left:
        said = await states(session, left)
        left = [id_ for id_ in left if said[id_] != "delivered"]
        if left and asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"{len(left)} of {len(ids)} are not delivered, the first is {said[left[0]]}")
        await asyncio.sleep(every if left else 0)


def message(url: str, body: str, **headers: str) -> dict[str, Any]:
    """One entry of a batch. Names of headers have underscores instead of dashes: `Upstash_Retries="3"`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"destination": url, "body": body, "headers": {"Content-Type": "application/json"} | named}
