"""What granian's worker calls to get the application: reads the settings and wires everything."""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from contextlib import ExitStack
from typing import Any

import orjson
from flask import Flask
from prometheus_client import CollectorRegistry, Counter, Histogram
from psycopg import Connection
from psycopg.types.json import set_json_loads
from psycopg_pool import ConnectionPool
from structlog.stdlib import BoundLogger

from services.api.application import create_app
from services.api.authentication import Authentication
from services.api.committer import Committer
from services.api.hot import HotRoute
from services.api.intake import Intake
from services.api.parts import Parts
from services.api.problem import error_response
from services.api.settings import ApiSettings
from services.api.store import Store
from tidings import log
from tidings.queries import load_queries
from tidings.settings import read
from tidings.targets import load_targets

# Requests read in parallel, the committer writes alone: more connections than that gain nothing on one machine.
POOL_MAX = 12
# The committer, and a few batches beside it.
WRITERS_MAX = 4
PARTITIONS_EVERY_SECONDS = 3600


def build() -> Flask:
    """The application with its pool and its threads. Raises `ConfigurationError`."""
    _die_with_parent()
    settings = read(ApiSettings)
    log.configure("api", level=settings.log_level, log_format=settings.log_format)
    # The pools live as long as the worker.
    return wire(settings, CollectorRegistry(), ExitStack())


def _die_with_parent() -> None:
    """Have the kernel end this worker when granian's main process was killed: an orphan would hold port and log open."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


def wire(settings: ApiSettings, registry: CollectorRegistry, closing: ExitStack) -> Flask:
    """The application; `closing` gets what it holds open."""
    logger = log.get("api")
    targets = load_targets(settings.targets_file)
    pool: ConnectionPool[Connection[Any]] = ConnectionPool(
        settings.database_url.get_secret_value(),
        min_size=2,
        max_size=POOL_MAX,
        timeout=10,
        open=True,
        configure=_read_json_as_it_is_written,
    )
    writers: ConnectionPool[Connection[Any]] = ConnectionPool(
        settings.database_url.get_secret_value(),
        min_size=1,
        max_size=WRITERS_MAX,
        timeout=10,
        open=True,
        kwargs={"autocommit": True},
    )
    closing.callback(pool.close)
    closing.callback(writers.close)
    store = Store(pool, writers, load_queries("services.api"))
    batch_size = Histogram(
        "tidings_commit_batch_size",
        "Submissions in one commit",
        buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        registry=registry,
    )
    submitted = Counter("tidings_submissions", "Submissions stored", ["target"], registry=registry)
    committer = Committer(store.insert, logger, batch_size).start()
    threading.Thread(target=_keep_partitions, args=(store, logger), name="partitions", daemon=True).start()
    parts = Parts(
        settings=settings,
        store=store,
        intake=Intake(
            store,
            committer,
            targets,
            webhooks=settings.webhooks == "on",
            input_bytes_max=settings.input_bytes_max,
            submitted=submitted,
        ),
        authentication=Authentication(
            store.tenant_of_key, internal_token=settings.internal_token.get_secret_value(), clock=time.monotonic
        ),
        targets=dict(targets),
        registry=registry,
        log=logger,
    )
    app = create_app(parts)
    # Flask's own way to put middleware in front.
    app.wsgi_app = HotRoute(  # type: ignore[method-assign]
        app.wsgi_app,
        authentication=parts.authentication,
        intake=parts.intake,
        bytes_max=settings.input_bytes_max,
        on_error=lambda error: error_response(error, app.logger),
    )
    return app


def _read_json_as_it_is_written(connection: Connection[Any]) -> None:
    """jsonb by orjson, which writes the answers: Python's own reader makes integers that orjson cannot write."""
    set_json_loads(orjson.loads, connection)


def _keep_partitions(store: Store, logger: BoundLogger) -> None:
    """The months ahead get their partitions long before a row needs them; a fault is tried again in a minute."""
    while True:
        pause = PARTITIONS_EVERY_SECONDS
        try:
            store.make_partitions()
        except Exception as error:  # noqa: BLE001  rows fall into the default partition meanwhile
            logger.warning("partitions_failed", error=type(error).__name__)
            pause = 60
        time.sleep(pause)
