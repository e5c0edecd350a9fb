"""The relay behind PgBouncer in transaction mode, where each transaction may use another session of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
from psycopg import sql

from services.relay.schema import create_schema
from services.relay.store.database import Database, new_pool
from tests.destination import Reply, destination
from tests.infra.pgbouncer import pgbouncer
from tests.infra.postgres import PostgresServer
from tests.integration.relay.conftest import Relay
from tests.wait import until

PUBLISHES = 200


def test_messages_published_through_a_transaction_pooler_are_delivered(
    postgres: PostgresServer, new_relay: Callable[..., Relay], tmp_path: Path
) -> None:
    with (
        destination(lambda _: Reply()) as server,
        postgres.database(template="template1") as name,
        pgbouncer(postgres.url(name), tmp_path) as pooled,
    ):
        relays = [new_relay(RELAY_DATABASE_URL=pooled) for _ in range(2)]

        def publish(n: int) -> int:
            headers = {"Upstash_Flow_Control_Key": f"k{n % 3}", "Upstash_Flow_Control_Value": "parallelism=5"}
            answer = relays[n % 2].publish(f"{server.url}/{n}", f"{n}", **(headers if n % 2 else {}))
            return answer.status_code

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(publish, range(PUBLISHES))) == [200] * PUBLISHES
        until(lambda: all(server.to(f"/{n}") for n in range(PUBLISHES)), 60)
        for relay in relays:
            for path in ("/v2/logs", "/v2/queues", "/v2/flowControl", "/v2/schedules", "/v2/dlq"):
                assert relay.call("GET", path).status_code == 200


def test_the_relay_leaves_no_setting_in_a_shared_session(postgres: PostgresServer, tmp_path: Path) -> None:
    with postgres.database(template="template1") as name, pgbouncer(postgres.url(name), tmp_path) as pooled:
        create_schema(pooled)

        async def use() -> None:
            async with new_pool(pooled, connections_max=8) as pool:
                database = Database(pool)
                for _ in range(20):
                    await asyncio.gather(*(database.fetch("SELECT count(*) FROM relay.tokens", {}) for _ in range(8)))

        asyncio.run(use())
        with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as other:
            for setting in ("statement_timeout", "lock_timeout"):
                row = other.execute(sql.SQL("SHOW {}").format(sql.Identifier(setting))).fetchone()
                assert row == ("0",)


def test_the_schema_is_created_through_the_pooler_in_used_sessions(postgres: PostgresServer, tmp_path: Path) -> None:
    with postgres.database(template="template1") as name, pgbouncer(postgres.url(name), tmp_path) as pooled:
        # The remains of another client of the pooler: a prepared statement with the name that psycopg gives its first.
        with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as other:
            other.execute("PREPARE _pg3_0 AS SELECT 1")
        assert create_schema(pooled) > 0
        assert create_schema(pooled) == 0
