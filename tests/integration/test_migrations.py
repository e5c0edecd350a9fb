"""The schema: migrations can be repeated, and each role has its rights."""

from __future__ import annotations

import threading

import psycopg
import pytest

from tests.infra.postgres import PostgresServer
from tidings.database.migrate import MIGRATIONS


def test_repeated_and_concurrent_migrations_change_nothing(postgres: PostgresServer) -> None:
    with postgres.database(template="template1") as name:
        failures: list[BaseException] = []

        def attempt() -> None:
            try:
                postgres.migrate(name)
            except BaseException as error:  # noqa: BLE001
                failures.append(error)

        threads = [threading.Thread(target=attempt) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []
        postgres.migrate(name)
        with psycopg.connect(postgres.url(name)) as connection:
            row = connection.execute("SELECT count(*) FROM tidings.submissions").fetchone()
        assert row == (0,)


@pytest.mark.parametrize("table", ["submissions", "attempts", "results", "attempt_starts"])
@pytest.mark.parametrize("verb", ["UPDATE tidings.{} SET {} = NULL", "DELETE FROM tidings.{}", "TRUNCATE tidings.{}"])
def test_the_api_can_neither_update_nor_delete(postgres: PostgresServer, database: str, table: str, verb: str) -> None:
    with (
        psycopg.connect(postgres.url(database, role="tidings_api")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(verb.format(table, "id" if table == "submissions" else "submission_id"))


@pytest.mark.parametrize(
    "column", ["submissions.body", "submissions.idempotency_key", "results.body", "api_keys.key_sha256"]
)
def test_debezium_cannot_read_unpublished_columns(postgres: PostgresServer, database: str, column: str) -> None:
    table, name = column.split(".")
    with (
        psycopg.connect(postgres.url(database, role="tidings_cdc")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(f"SELECT {name} FROM tidings.{table}")


def test_an_upgrade_settles_old_removals_and_leaves_the_others_to_the_reconciler(
    postgres: PostgresServer,
) -> None:
    files = sorted(path for path in MIGRATIONS.glob("*.sql") if path.name <= "0014_removals.sql")
    with postgres.database(template="template1") as name, psycopg.connect(postgres.url(name)) as connection:
        for path in files[:-1]:
            connection.execute(path.read_bytes())
        connection.execute(
            "INSERT INTO tidings.content_removals (submission_id, message_ids, removed_at)"
            " SELECT gen_random_uuid(), '{}', now() - n * interval '1 day' FROM generate_series(1, 100) AS n"
        )
        connection.execute(files[-1].read_bytes())
        row = connection.execute(
            "SELECT count(*), max(now() - removed_at) < interval '32 days' FROM tidings.content_removals"
            " WHERE settled_at IS NULL"
        ).fetchone()
    assert row == (31, True)
