"""A plain Flask endpoint in front of each peer's queue: `gunicorn "benchmarks.way.peers.endpoint:build('pgqueuer')"`.

`POST /submit` answers 202 with the id of a job that is committed.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

from flask import Flask, Response, jsonify, request
from psycopg_pool import ConnectionPool

from benchmarks.relay.peers import job as given

CONNECTIONS = 16
DELAY = "0.05"


def build(peer: str) -> Flask:
    app = Flask("plain")
    enqueue = {"pgqueuer": _pgqueuer, "procrastinate": _procrastinate, "celery-gevent": _celery}[peer]()

    @app.post("/submit")
    def submit() -> tuple[Response, int]:
        prompt = json.dumps(request.get_json()["input"])
        id_ = str(uuid.uuid4())
        enqueue({"id": id_, "delay": DELAY, "prompt": prompt})
        return jsonify({"id": id_, "status": "queued"}), 202

    @app.get("/readyz")
    def readyz() -> tuple[Response, int]:
        return jsonify({"status": "ok"}), 200

    return app


def _pgqueuer() -> Callable[[dict[str, str]], None]:
    from pgqueuer.db import SyncPsycopgDriver  # type: ignore[import-not-found]  # noqa: PLC0415
    from pgqueuer.queries import SyncQueries  # type: ignore[import-not-found]  # noqa: PLC0415

    pool = ConnectionPool(
        given.database_url(), min_size=CONNECTIONS, max_size=CONNECTIONS, kwargs={"autocommit": True}, open=True
    )

    def enqueue(job: dict[str, str]) -> None:
        with pool.connection() as connection:
            SyncQueries(SyncPsycopgDriver(connection)).enqueue("call", json.dumps(job).encode())

    return enqueue


def _procrastinate() -> Callable[[dict[str, str]], None]:
    from procrastinate import App, SyncPsycopgConnector  # type: ignore[import-not-found]  # noqa: PLC0415

    app = App(connector=SyncPsycopgConnector(conninfo=given.database_url(), min_size=CONNECTIONS, max_size=CONNECTIONS))
    app.open()
    deferrer = app.configure_task("call", queue="calls")

    def enqueue(job: dict[str, str]) -> None:
        deferrer.defer(**job)

    return enqueue


def _celery() -> Callable[[dict[str, str]], None]:
    from benchmarks.relay.peers.with_celery import call  # noqa: PLC0415

    def enqueue(job: dict[str, str]) -> None:
        call.apply_async(kwargs=job, task_id=job["id"])

    return enqueue
