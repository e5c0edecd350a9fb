"""No index of the relay or of Tidings repeats another, as each makes every insert slower."""

from __future__ import annotations

import psycopg
import pytest

from services.relay.schema import create_schema
from tests.infra.postgres import PostgresServer
from tidings.database.queries import load_queries

# Indexes that repeat the first columns of another one, with the reason for each.
ALLOWED: dict[str, str] = {}


def doubled(url: str) -> list[tuple[str, str]]:
    """The superfluous indexes, each with the index that has its columns."""
    statement = load_queries("tests.integration", "indexes.sql")["doubled"]
    with psycopg.connect(url) as connection:
        return connection.execute(statement, {"schemas": ["relay", "tidings"]}).fetchall()


def test_no_index_repeats_another(postgres: PostgresServer) -> None:
    with postgres.database() as name:
        create_schema(postgres.url(name))
        found = doubled(postgres.url(name))
        assert [pair for pair in found if pair[0] not in ALLOWED] == []
        assert ALLOWED.keys() <= {pair[0] for pair in found}


@pytest.mark.parametrize(
    ("index", "by"),
    [
        ("CREATE INDEX again ON relay.messages (due_at) WHERE state = 'waiting' AND flow_key IS NULL", "messages_due"),
        ("CREATE INDEX again ON relay.queues (name)", "queues_pkey"),
        ("CREATE INDEX again ON relay.messages_long (ended_at) WHERE ended_at IS NOT NULL", "messages_long_ended"),
        ("CREATE INDEX again ON tidings.submissions (tenant)", "submissions"),
    ],
)
def test_an_index_that_repeats_another_is_found(postgres: PostgresServer, index: str, by: str) -> None:
    with postgres.database() as name:
        create_schema(postgres.url(name))
        with psycopg.connect(postgres.url(name)) as connection:
            connection.execute(index)
        others = [other for found, other in doubled(postgres.url(name)) if found.endswith("again")]
        assert any(by in other for other in others), others


@pytest.mark.parametrize(
    "index",
    [
        "CREATE INDEX other ON relay.messages (due_at) WHERE state = 'waiting'",
        "CREATE INDEX other ON relay.queues (name DESC)",
        "CREATE INDEX other ON relay.queues (created_at)",
        "CREATE INDEX other ON relay.queues USING hash (name)",
    ],
)
def test_an_index_that_differs_is_not_reported(postgres: PostgresServer, index: str) -> None:
    with postgres.database() as name:
        create_schema(postgres.url(name))
        with psycopg.connect(postgres.url(name)) as connection:
            connection.execute(index)
        assert [found for found, _ in doubled(postgres.url(name)) if found.endswith("other")] == []
