"""The relay's schema: created once, by one of several processes; no accepted message is lost when it changes."""

from __future__ import annotations

import asyncio
import threading
from importlib import resources
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg_pool import AsyncConnectionPool

from services.relay.options import CallbackOptions, FlowControl, Options
from services.relay.schema import SchemaError, create_schema
from services.relay.store.database import Database
from services.relay.store.encryption import Encryption
from tests.infra.postgres import PostgresServer
from tests.integration.relay_store.conftest import Stores

FILES = sum(file.name.endswith(".sql") for file in resources.files("services.relay.schema_files").iterdir())


def test_processes_that_start_at_once_create_it_once(postgres: PostgresServer) -> None:
    made: list[int] = []
    with postgres.database(template="template1") as name:
        url = postgres.url(name)
        threads = [threading.Thread(target=lambda: made.append(create_schema(url))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(made) == [0, 0, FILES]


def test_a_message_of_the_first_schema_is_delivered_by_the_newest(postgres: PostgresServer) -> None:
    encryption = Encryption(Fernet.generate_key().decode())
    flow = {"key": "k", "parallelism": None, "rate": 3, "period_seconds": 1}
    given = {
        "headers": {"Authorization": "Bearer x"},
        "callback": None,
        "failure_callback": {"url": "http://f.example/"},
    }
    sealed = encryption.seal(given | {"retry_delay": "1000", "final_status": [400], "flow": flow})
    first = resources.files("services.relay").joinpath("schema_files/0001_messages.sql").read_bytes()
    with postgres.database(template="template1") as name:
        with psycopg.connect(postgres.url(name)) as connection:
            connection.execute("CREATE SCHEMA relay")
            connection.execute("CREATE TABLE relay.schema_files (name text PRIMARY KEY)")
            connection.execute(first)
            connection.execute("INSERT INTO relay.schema_files VALUES ('0001_messages.sql')")
            connection.execute(
                "INSERT INTO relay.messages (id, kind, protocol, url, method, body, sealed, label, retries_max, timeout_ms,"
                " caller_ip, not_before, due_at) VALUES"
                " ('msg_old', 'message', 2, 'http://x.example/', 'POST', 'hi', %s, 'l', 3, 1000, '', now(), now())",
                (sealed,),
            )
        assert create_schema(postgres.url(name)) == FILES - 1

        async def story() -> None:
            async with AsyncConnectionPool(postgres.url(name), min_size=1, max_size=2, open=False) as pool:
                [claimed] = await Stores(Database(pool), encryption).claim()
            assert (claimed.id, claimed.body, claimed.labels) == ("msg_old", b"hi", ("l",))
            assert claimed.headers == {"Authorization": "Bearer x"}
            assert claimed.options == Options(
                failure_callback=CallbackOptions("http://f.example/"),
                retry_delay="1000",
                final_status=(400,),
                flow=FlowControl("k", None, 3),
            )

        asyncio.run(story())


def test_a_schema_of_a_newer_version_is_refused(relay_url: str, administrator: psycopg.Connection[Any]) -> None:
    administrator.execute("INSERT INTO relay.schema_files VALUES ('9999_of_a_later_version.sql')")
    with pytest.raises(SchemaError, match=r"newer .* 9999_of_a_later_version\.sql"):
        create_schema(relay_url)


def test_the_wait_for_the_schema_lock_of_another_process_is_bounded(
    relay_url: str, administrator: psycopg.Connection[Any]
) -> None:
    administrator.execute("SELECT pg_advisory_lock(%s)", (int.from_bytes(b"relay", "big"),))
    with pytest.raises(SchemaError, match="another process"):
        create_schema(relay_url, lock_seconds=0.2)
    administrator.execute("SELECT pg_advisory_unlock_all()")
    assert create_schema(relay_url) == 0


def test_no_index_exists_twice(administrator: psycopg.Connection[Any]) -> None:
    """Neither the same index, nor one whose entries are all in another index with the same column."""
    doubled = administrator.execute(
        "SELECT a.indexrelid::regclass, b.indexrelid::regclass FROM pg_index AS a JOIN pg_index AS b USING (indrelid)"
        " JOIN pg_class AS c ON c.oid = a.indrelid"
        " WHERE a.indexrelid < b.indexrelid AND a.indkey::text = b.indkey::text AND c.relkind = 'p'"
        " AND c.relnamespace = 'relay'::regnamespace AND a.indpred IS NOT DISTINCT FROM b.indpred"
        " UNION ALL SELECT i.indexrelid::regclass, NULL FROM pg_index AS i"
        " WHERE i.indexrelid::regclass::text = 'relay.messages_body'"
    ).fetchall()
    assert doubled == []
