"""The job of every peer: a call to make and an answer to save. Imports nothing of this repository."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable

# The waiting client is notified in the transaction that stores the answer.
TOLD = "WITH kept AS ({insert} RETURNING id) SELECT pg_notify('answers', id) FROM kept"
# As long as the body of the relay's messages.
PROMPT = json.dumps({"prompt": "x" * 985})
# An answer is one row and one commit: the simplest implementation.
INSERT_ASYNCPG = "INSERT INTO answers (id, body) VALUES ($1, $2)"
INSERT_PSYCOPG = "INSERT INTO answers (id, body) VALUES (%s, %s)"
# The number of connections that insert answers.
SAVERS = 16
# The default limit of concurrent calls; each figure sets its own by the environment.
CONCURRENCY = "BENCH_CONCURRENCY"


def insert(statement: str) -> str:
    """`statement`, with a notification of its id if a figure wants one."""
    return TOLD.format(insert=statement) if os.environ.get("BENCH_NOTIFY", "0") == "1" else statement


def database_url() -> str:
    return os.environ["BENCH_DATABASE_URL"]


def redis_port() -> int:
    return int(os.environ["BENCH_REDIS_PORT"])


def concurrency() -> int:
    return int(os.environ[CONCURRENCY])


def keeps() -> bool:
    """Whether answers are saved."""
    return os.environ.get("BENCH_KEEP", "1") == "1"


def address(id_: str, delay: str) -> str:
    return f"{os.environ['BENCH_UPSTREAM']}/call?id={id_}&delay={delay}"


def orders(enqueue: Callable[[list[dict[str, str]]], Awaitable[None]], loop: asyncio.AbstractEventLoop) -> None:
    """Read orders, one per line: `{"ids": […], "delay": "5", "batch": 100, "senders": 4}`. Enqueue in batches of
    `batch`, `senders` at once. Print the times at which each order began and ended, in epoch seconds.
    """
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        jobs = [{"id": id_, "delay": order["delay"], "prompt": PROMPT} for id_ in order["ids"]]
        size = order["batch"]
        batches = [jobs[start : start + size] for start in range(0, len(jobs), size)]
        began = time.time()
        loop.run_until_complete(_sent(enqueue, batches, order["senders"]))
        print(json.dumps({"began": began, "ended": time.time()}), flush=True)


async def _sent(
    enqueue: Callable[[list[dict[str, str]]], Awaitable[None]], batches: list[list[dict[str, str]]], senders: int
) -> None:
    waiting = iter(batches)

    async def send() -> None:
        for batch in waiting:
            await enqueue(batch)

    await asyncio.gather(*(send() for _ in range(senders)))
