"""The reconciler's checks on a real database, with its own role. The relay is an HTTP server of the test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from services.reconciler.metrics import ReconcilerMetrics
from services.reconciler.relay_client import RelayClient
from services.reconciler.store import Store
from tests.destination import Received, Reply, destination
from tests.infra.postgres import PostgresServer
from tidings.contract.ids import new_event_id, new_submission_id
from tidings.database.queries import load_queries


@dataclass
class Rows:
    """The tables of one database, as the administrator writes and reads them."""

    url: str
    store: Store
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.metrics = ReconcilerMetrics(self.registry)

    def submit(self, *, age_seconds: float = 3600, expires_in: float | None = None) -> UUID:
        """Insert a submission of that age; `expires_in` counts from now. Its id has its age, as ids contain a time."""
        id_ = aged(new_submission_id(), age_seconds)
        self.execute(
            "INSERT INTO tidings.submissions (id, tenant, target, body, content_type, metadata, channel, fingerprint,"
            " created_at, expires_at) VALUES (%s, 'a', 't', '{}', 'application/json', '{\"n\": 1}', 'c', '',"
            " now() - make_interval(secs => %s), now() + make_interval(secs => %s))",
            id_, age_seconds, expires_in,
        )  # fmt: skip
        return id_

    def end(self, id_: UUID, *, age_seconds: float = 3600) -> UUID:
        """Insert a result of that age; return its event id."""
        event_id = aged(new_event_id(), age_seconds)
        self.execute(
            "INSERT INTO tidings.results (submission_id, event_id, tenant, target, outcome, submitted_at)"
            " VALUES (%s, %s, 'a', 't', 'succeeded', now())",
            id_, event_id,
        )  # fmt: skip
        return event_id

    def ended_submissions(self, count: int, *, age_seconds: float) -> None:
        """Insert `count` submissions with results, a millisecond apart from that age on."""
        self.execute(
            "WITH made AS ("
            " INSERT INTO tidings.submissions (id, tenant, target, body, content_type, fingerprint, expires_at)"
            " SELECT tidings.uuid_floor(at), 'a', 't', '{}', 'application/json', '', at"
            " FROM (SELECT now() - make_interval(secs => %s - n / 1000.0) AS at FROM generate_series(1, %s) AS n)"
            " RETURNING id)"
            " INSERT INTO tidings.results (submission_id, event_id, tenant, target, outcome, submitted_at)"
            " SELECT id, id, 'a', 't', 'succeeded', now() FROM made",
            age_seconds, count,
        )  # fmt: skip

    def execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def nudged(self, table: str, column: str) -> list[UUID]:
        return [row[0] for row in self.execute(f"SELECT {column} FROM tidings.{table} ORDER BY nudged_at")]

    def counted(self, name: str) -> float:
        return self.registry.get_sample_value(name) or 0.0


def aged(id_: UUID, seconds: float) -> UUID:
    """An id as it would have been created `seconds` ago."""
    return UUID(int=id_.int - (int(seconds * 1000) << 80))


@pytest.fixture
def rows(postgres: PostgresServer, database: str) -> Iterator[Rows]:
    store = Store(postgres.url(database, role="tidings_reconciler"), load_queries("services.reconciler"))
    yield Rows(postgres.url(database), store)
    store.close()


class FakeRelay:
    """Answers `/v2/labels`, retries of dead letters and removals with the content that a test sets."""

    def __init__(self) -> None:
        self.live: set[str] = set()
        self.letters: dict[str, list[str]] = {}
        self.retried: list[str] = []
        self.removed: list[dict[str, list[str]]] = []
        self.removal_reply = Reply()
        self.reply: Reply | None = None
        self.before: Callable[[], object] = lambda: None

    def answer(self, received: Received) -> Reply:
        self.before()
        if self.reply is not None:
            return self.reply
        path = received.path.partition("?")[0]
        if path == "/v2/dlq/retry":
            self.retried += json.loads(received.body)["dlqIds"]
            return Reply(201, b'{"responses": []}')
        if path == "/v2/contents/remove":
            self.removed.append(json.loads(received.body))
            return self.removal_reply
        assert path == "/v2/labels"
        if received.method == "GET":
            return Reply(body=json.dumps({"live": sorted(self.live)}).encode())
        asked = set(json.loads(received.body)["labels"])
        letters = {label: ids for label, ids in self.letters.items() if label in asked}
        return Reply(body=json.dumps({"live": sorted(asked & self.live), "callbackLetters": letters}).encode())


@pytest.fixture
def fake_relay() -> FakeRelay:
    return FakeRelay()


@pytest.fixture
def relay(fake_relay: FakeRelay) -> Iterator[RelayClient]:
    with destination(fake_relay.answer) as server:
        client = RelayClient(server.url, "token")
        yield client
        client.close()
