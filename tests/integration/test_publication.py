"""The columns that the migrated database publishes are those that the connector reads and routes. The test queries the
database, not the migration files.
"""

from __future__ import annotations

import json
import re

import psycopg
import pytest

from tests.infra.postgres import PostgresServer
from tests.process import ROOT
from tidings.contract import topics

CONNECTOR = json.loads((ROOT / "debezium" / "connector.json").read_text())


@pytest.fixture
def published(postgres: PostgresServer, database: str) -> dict[str, set[str]]:
    """The columns of each published table."""
    with psycopg.connect(postgres.url(database)) as connection:
        rows = connection.execute(
            "SELECT tablename, attnames FROM pg_publication_tables WHERE pubname = %s AND schemaname = 'tidings'",
            (CONNECTOR["publication.name"],),
        ).fetchall()
    return {table: set(names) for table, names in rows}


def test_the_connector_reads_the_published_columns_and_no_other(published: dict[str, set[str]]) -> None:
    listed = CONNECTOR["column.include.list"].replace("\\", "")
    found = {table: set(names.split("|")) for table, names in re.findall(r"tidings\.(\w+)\.\(([^)]+)\)", listed)}
    found["heartbeats"] = {"at"}
    assert found == published
    assert set(CONNECTOR["table.include.list"].split(",")) == {f"tidings.{table}" for table in published}


def test_debezium_may_read_the_published_columns_and_no_other(
    postgres: PostgresServer, database: str, published: dict[str, set[str]]
) -> None:
    with psycopg.connect(postgres.url(database)) as connection:
        rows = connection.execute(
            "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
            " AND NOT a.attisdropped WHERE c.relnamespace = 'tidings'::regnamespace AND c.relkind IN ('r', 'p')"
            " AND NOT c.relispartition AND has_column_privilege('tidings_cdc', c.oid, a.attnum, 'SELECT')"
        ).fetchall()
    readable: dict[str, set[str]] = {}
    for table, column in rows:
        readable.setdefault(table, set()).add(column)
    assert readable == published


def test_no_body_and_no_secret_is_published(published: dict[str, set[str]]) -> None:
    assert published.keys() >= {"submissions", "results"}
    hidden = {"body", "idempotency_key", "fingerprint", "key_sha256"}
    assert not any(names & hidden for names in published.values())


def test_only_inserts_are_published_and_under_the_partitioned_table(postgres: PostgresServer, database: str) -> None:
    with psycopg.connect(postgres.url(database)) as connection:
        row = connection.execute(
            "SELECT pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot FROM pg_publication WHERE pubname = %s",
            (CONNECTOR["publication.name"],),
        ).fetchone()
    assert row == (True, False, False, False, True)
    assert CONNECTOR["publication.autocreate.mode"] == "disabled"
    assert CONNECTOR["exactly.once.support"] == "required"


def test_each_published_table_is_routed_to_a_topic_of_ours(published: dict[str, set[str]]) -> None:
    routed = set()
    for table in published:
        name = f"tidings.cdc.tidings.{table}"
        for router in CONNECTOR["transforms"].split(","):
            if CONNECTOR[f"transforms.{router}.type"].endswith("RegexRouter"):
                pattern = CONNECTOR[f"transforms.{router}.regex"]
                target = re.sub(r"\$(\d)", r"\\\1", CONNECTOR[f"transforms.{router}.replacement"])
                name = re.sub(f"^{pattern}$", target, name)
        routed.add(name)
    assert routed == {topic.name for topic in topics.TOPICS if topic.name.startswith("tidings.cdc.")}


def test_a_nudge_has_the_columns_of_the_row_that_it_tells_again(published: dict[str, set[str]]) -> None:
    assert published["submission_nudges"] == published["submissions"] | {"nudged_at"}
    assert published["result_nudges"] == published["results"] | {"nudged_at"}
