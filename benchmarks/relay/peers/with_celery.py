"""Celery, redis as broker and result store, run with `-P gevent`; requests. `enqueue`, or `celery -A` this module."""

from __future__ import annotations

import asyncio
import os
import sys

import requests
from celery import Celery  # type: ignore[import-not-found]

from benchmarks.relay.peers import job as given

REDIS = f"redis://127.0.0.1:{os.environ['BENCH_REDIS_PORT']}"
app = Celery("calls", broker=f"{REDIS}/0", backend=f"{REDIS}/1")
app.conf.update(
    task_acks_late=True,  # a killed worker would otherwise lose its calls, unlike those of the other peers
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    task_serializer="json",
    result_serializer="json",
    redis_max_connections=2000,
    # With the transport's default of 10, acknowledgements failed with "Too many connections", and calls were lost.
    broker_transport_options={"max_connections": 2000},
)
session = requests.Session()
session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=2000))


@app.task(name="call")  # type: ignore[untyped-decorator]
def call(id: str, delay: str, prompt: str) -> str:  # noqa: A002
    return session.post(given.address(id, delay), data=prompt, timeout=60).text


def enqueue() -> None:
    async def put(jobs: list[dict[str, str]]) -> None:
        for one in jobs:
            call.apply_async(kwargs=one, task_id=one["id"])

    given.orders(put, asyncio.new_event_loop())


if __name__ == "__main__" and sys.argv[1] == "enqueue":
    enqueue()
