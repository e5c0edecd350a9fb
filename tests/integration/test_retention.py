"""Only whole months whose submissions have all ended are dropped. A month that is being read or has open submissions
stays.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from tests.infra.postgres import PostgresServer
from tests.process import ROOT
from tidings.contract.ids import new_event_id, new_submission_id
from tidings.database.retention import Dropped, Kept, Retention

TABLES = ("submissions", "attempts", "results", "attempt_starts")


class Months:
    """A database with partitions for past months."""

    def __init__(self, url: str) -> None:
        self.url = url

    def make(self, months_ago: int) -> str:
        """Create partitions for a month; return its name."""
        first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        for _ in range(months_ago):
            first = (first - timedelta(days=1)).replace(day=1)
        following = (first + timedelta(days=32)).replace(day=1)
        name = f"{first:%Y_%m}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SET ROLE tidings_owner")
            for parent in TABLES:
                connection.execute(
                    f"CREATE TABLE tidings.{parent}_{name} PARTITION OF tidings.{parent} FOR VALUES FROM ('{_floor(first)}')"
                    f" TO ('{_floor(following)}')".encode()
                )
        return name

    def submit(self, month: str, *, ended: bool) -> UUID:
        at = datetime.strptime(month + "_15", "%Y_%m_%d").replace(tzinfo=UTC)
        id_ = UUID(int=(int(at.timestamp() * 1000) << 80) | (new_submission_id().int & ((1 << 80) - 1)))
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO tidings.submissions (id, tenant, target, body, content_type, fingerprint)"
                " VALUES (%s, 'a', 't', '{}', 'application/json', '')",
                (id_,),
            )
            connection.execute("INSERT INTO tidings.attempt_starts VALUES (%s, 1, now())", (id_,))
            if ended:
                connection.execute(
                    "INSERT INTO tidings.results (submission_id, event_id, tenant, target, outcome, submitted_at)"
                    " VALUES (%s, %s, 'a', 't', 'succeeded', now())",
                    (id_, new_event_id()),
                )
        return id_

    def partitions(self) -> set[str]:
        with psycopg.connect(self.url) as connection:
            rows = connection.execute(
                "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
                " WHERE c.relnamespace = 'tidings'::regnamespace AND c.relkind = 'r'"
            ).fetchall()
        return {row[0] for row in rows}


def _floor(moment: datetime) -> UUID:
    return UUID(int=int(moment.timestamp() * 1000) << 80)


@pytest.fixture
def months(postgres: PostgresServer, database: str) -> Months:
    return Months(postgres.url(database))


@pytest.fixture
def role_url(postgres: PostgresServer, database: str) -> str:
    """Run retention as the reconciler does."""
    return postgres.url(database, role="tidings_reconciler")


def test_whole_ended_months_are_dropped_and_others_stay(months: Months, role_url: str) -> None:
    old, open_, young = months.make(6), months.make(5), months.make(1)
    months.submit(old, ended=True)
    months.submit(open_, ended=True)
    months.submit(open_, ended=False)
    months.submit(young, ended=True)
    with psycopg.connect(role_url, autocommit=True) as connection:
        retention = Retention(connection, 62)
        assert [(month.name, month.submissions, month.open) for month in retention.months()] == [
            (old, 1, 0),
            (open_, 2, 1),
        ]
        outcomes = list(retention.drop())
    assert isinstance(outcomes[0], Dropped)
    assert isinstance(outcomes[1], Kept)
    left = months.partitions()
    assert not any(name.endswith(old) for name in left)
    for name in (open_, young):
        assert {f"{table}_{name}" for table in TABLES} <= left


def test_a_month_that_is_being_read_stays_and_blocks_no_insert(months: Months, role_url: str) -> None:
    old = months.make(6)
    months.submit(old, ended=True)
    with psycopg.connect(months.url) as reader, psycopg.connect(role_url, autocommit=True) as connection:
        reader.execute("SELECT count(*) FROM tidings.submissions")
        [outcome] = Retention(connection, 62).drop()
        assert isinstance(outcome, Kept)
        assert "being read" in outcome.why
        months.submit(old, ended=True)
        reader.rollback()
        [outcome] = Retention(connection, 62).drop()
        assert isinstance(outcome, Dropped)


def test_the_function_drops_no_month_that_may_have_open_submissions(months: Months, role_url: str) -> None:
    this = f"{datetime.now(UTC):%Y_%m}"
    months.make(6)
    with psycopg.connect(role_url, autocommit=True) as connection:
        for month in (this, "2001_01", "x'; DROP TABLE tidings.results; --"):
            assert connection.execute("SELECT tidings.drop_month(%s)", (month,)).fetchone() == (False,)
    assert f"submissions_{this}" in months.partitions()


def test_old_idempotency_keys_are_deleted(months: Months, role_url: str) -> None:
    with psycopg.connect(months.url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO tidings.idempotency_keys SELECT 'a', n::text, gen_random_uuid(), '', now() - n * interval '1 day'"
            " FROM generate_series(1, 100) AS n"
        )
    with psycopg.connect(role_url, autocommit=True) as connection:
        assert Retention(connection, 62).prune_keys() == 39
        assert Retention(connection, 62).prune_keys() == 0


def test_old_removals_of_contents_are_deleted_once_they_are_settled(months: Months, role_url: str) -> None:
    with psycopg.connect(months.url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO tidings.content_removals (submission_id, message_ids, removed_at, settled_at)"
            " SELECT gen_random_uuid(), '{}', now() - n * interval '1 day', CASE WHEN n % 2 = 0 THEN now() END"
            " FROM generate_series(1, 100) AS n"
        )
    with psycopg.connect(role_url, autocommit=True) as connection:
        assert Retention(connection, 62).prune_removals() == 20
        assert Retention(connection, 62).prune_removals() == 0
        # A direct call of the function deletes none that is younger than the maximum time for which a submission may be
        # open.
        assert connection.execute("SELECT tidings.prune_content_removals(now(), 100)").fetchone() == (15,)
    with psycopg.connect(months.url) as connection:
        assert connection.execute("SELECT count(*) FROM tidings.content_removals").fetchone() == (65,)


def test_the_command_lists_what_it_drops_before_it_drops_it(months: Months) -> None:
    old = months.make(6)
    months.submit(old, ended=True)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "TIDINGS_ADMIN_DATABASE_URL": months.url}
        command = [sys.executable, "-m", "tidings", "retention", *words]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    assert run().returncode == 2
    assert run("--days", "30").returncode == 2
    dry = run("--days", "62", "--dry-run")
    assert f"{old}  1 submissions" in dry.stdout, dry.stderr
    assert "would be dropped" in dry.stdout
    assert f"submissions_{old}" in months.partitions()
    done = run("--days", "62")
    assert f"{old}  1 submissions  dropped" in done.stdout, done.stderr
    assert f"submissions_{old}" not in months.partitions()
