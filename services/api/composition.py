"""The composition of the api: from its settings to the ASGI applications of its two ports."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import orjson
from flask import Flask
from prometheus_client import CollectorRegistry, Counter, Histogram
from psycopg import Connection
from psycopg.types.json import set_json_loads
from structlog.stdlib import BoundLogger

from services.api import listeners
from services.api.acceptance import Acceptor
from services.api.application import create_app
from services.api.asgi import AsgiApp
from services.api.authentication import Authentication
from services.api.bodies import MEMORY_BYTES, BodyMemory
from services.api.committer import Committer
from services.api.database import open_pool
from services.api.dependencies import Dependencies
from services.api.recording import Recorder, Recording, Report
from services.api.relay_signature import RelaySignature
from services.api.row import Row, Stored
from services.api.settings import ApiSettings
from services.api.store import Store
from services.api.submit import Submit
from services.api.validation import Validator
from tidings.contract.targets import load_targets
from tidings.database.partitions import Partitions
from tidings.database.queries import load_queries
from tidings.process import log

# Requests read in parallel, and callbacks write. More connections than this gain nothing on one machine.
POOL_MAX = 12
# One connection for submissions that arrive alone, and a few for batches.
WRITERS_MAX = 4
# A commit delays every commit behind it, so its connection times out sooner than a reader's.
COMMIT_SECONDS = 12.0
PARTITIONS_EVERY_SECONDS = 3600
STOP_SECONDS = 5.0
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Api:
    """`public` and `internal` are ASGI applications; both forward to `flask`."""

    public: AsgiApp
    internal: AsgiApp
    flask: Flask
    dependencies: Dependencies


def wire(settings: ApiSettings, registry: CollectorRegistry, closing: ExitStack) -> Api:
    """Build the api and register in `closing` the resources that it opens. Raises `ConfigurationError`."""
    logger = log.get("api")
    targets = load_targets(settings.targets_file)
    store = _store(settings, closing)
    batch_size = Histogram(
        "tidings_commit_batch_size",
        "Submissions in one commit",
        buckets=BATCH_SIZES,
        registry=registry,
    )
    committer = Committer[Row, Stored](store.insert, logger, batch_size).start()
    closing.callback(committer.stop, STOP_SECONDS)
    callback_batch_size = Histogram(
        "tidings_callback_batch_size", "Callbacks in one commit", buckets=BATCH_SIZES, registry=registry
    )
    recorder = Recorder(store, targets)
    callback_committer = Committer[Report, str](recorder.record, logger, callback_batch_size).start()
    closing.callback(callback_committer.stop, STOP_SECONDS)
    _keep_partitions(Partitions(store.execute), logger, closing)
    validator = Validator(
        targets,
        webhooks=settings.webhooks == "on",
        webhooks_public_only=settings.webhook_addresses == "public",
        input_bytes_max=settings.input_bytes_max,
    )
    submitted = Counter("tidings_submissions", "Submissions stored", ["target"], registry=registry)
    acceptor = Acceptor(validator, committer, store, submitted, targets)
    authentication = Authentication(
        store.tenant_of_key, internal_token=settings.internal_token.get_secret_value(), clock=time.monotonic
    )
    dependencies = Dependencies(
        settings=settings,
        store=store,
        committers=(committer, callback_committer),
        acceptor=acceptor,
        submit=Submit(acceptor, store),
        recording=Recording(RelaySignature(settings), authentication, recorder, callback_committer, registry),
        authentication=authentication,
        targets=dict(targets),
        registry=registry,
        log=logger,
    )
    return _ports(dependencies, create_app(dependencies))


def _ports(dependencies: Dependencies, app: Flask) -> Api:
    shared: dict[str, Any] = {"authentication": dependencies.authentication, "log": logging.getLogger("tidings")}
    public = AsgiApp(
        app, listeners.public(dependencies.settings, dependencies.submit, dependencies.recording), **shared
    )
    # Nearly all bodies on this port are the relay's, so a share per owner would only delay callbacks.
    memory = BodyMemory(per_owner=MEMORY_BYTES)
    inside = listeners.internal(dependencies.settings, dependencies.authentication, dependencies.recording)
    internal = AsgiApp(app, inside, memory=memory, **shared)
    return Api(public, internal, app, dependencies)


def _store(settings: ApiSettings, closing: ExitStack) -> Store:
    url = settings.database_url.get_secret_value()
    pool = open_pool(url, size_min=2, size_max=POOL_MAX, configure=_use_orjson)
    writers = open_pool(url, size_min=1, size_max=WRITERS_MAX, answer_seconds=COMMIT_SECONDS)
    closing.callback(pool.close, STOP_SECONDS)
    closing.callback(writers.close, STOP_SECONDS)
    return Store(pool, writers, load_queries("services.api"))


def _use_orjson(connection: Connection[Any]) -> None:
    """Read jsonb with orjson, which also writes responses: Python's reader makes integers that orjson cannot write."""
    set_json_loads(orjson.loads, connection)


def _keep_partitions(partitions: Partitions, logger: BoundLogger, closing: ExitStack) -> None:
    """Create the partitions of the coming months. Tables that were locked are tried again after a minute."""
    ending = threading.Event()

    def keep() -> None:
        pause = 0.0
        while not ending.wait(pause):
            pause = PARTITIONS_EVERY_SECONDS
            try:
                made = partitions.make()
            except Exception as error:  # noqa: BLE001  until then rows go to the default partition
                if ending.is_set():
                    return
                logger.warning("partitions_failed", error=type(error).__name__)
                pause = 60
                continue
            if made.names:
                logger.info("partitions_made", names=made.names, rows_moved=made.moved)
            if made.busy:
                logger.info("partitions_busy", names=made.busy)
                pause = 60

    threading.Thread(target=keep, name="partitions", daemon=True).start()
    closing.callback(ending.set)
