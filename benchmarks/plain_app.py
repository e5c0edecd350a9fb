"""The peer of bench_submit: the simplest implementation, with Flask, a psycopg pool, and one INSERT and COMMIT per
request.
"""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, jsonify, request
from psycopg_pool import ConnectionPool

from tidings.contract.ids import new_submission_id

INSERT = """
INSERT INTO tidings.submissions (id, tenant, target, body, content_type, fingerprint, created_at)
VALUES (%s, %s, %s, %s, 'application/json', %s, %s)
"""


def build() -> Flask:
    """The application, for `gunicorn "benchmarks.plain_app:build()"`."""
    app = Flask("plain")
    pool: ConnectionPool[Any] = ConnectionPool(os.environ["API_DATABASE_URL"], min_size=16, max_size=16, open=True)

    @app.post("/v1/submissions")
    def submit() -> tuple[Response, int]:
        content = request.get_json()
        id_ = new_submission_id()
        body = request.get_data()
        with pool.connection() as connection:
            connection.execute(
                INSERT, (id_, "default", content["target"], body, hashlib.sha256(body).digest(), datetime.now(UTC))
            )
        return jsonify({"id": str(id_), "status": "queued"}), 202

    @app.get("/readyz")
    def readyz() -> tuple[Response, int]:
        return jsonify({"status": "ok"}), 200

    return app
