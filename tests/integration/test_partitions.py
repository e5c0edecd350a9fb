"""Monthly partitions: created without blocking others, and out of a default partition that has rows of the month."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from tests.infra.postgres import PostgresServer
from tidings.database.partitions import Made, Partitions

TABLES = ("submissions", "attempts", "results", "attempt_starts")
# The number of rows that `insert` inserts, and of those that are published.
ROWS, PUBLISHED = 6, 4
Connection = psycopg.Connection[Any]


def id_at(moment: datetime) -> UUID:
    """A UUID v7 (RFC 9562, section 5.7) of that time."""
    random = int.from_bytes(secrets.token_bytes(10)) & ~(0xF << 76) & ~(0x3 << 62)
    return UUID(int=int(moment.timestamp() * 1000) << 80 | 0x7 << 76 | 0x2 << 62 | random)


def month_of(moment: datetime) -> str:
    return f"{moment:%Y_%m}"


NOW = datetime.now(UTC)
LATER = (NOW.replace(day=1) + timedelta(days=70)).replace(day=5)  # the month after next


class Database:
    """A database, with connections of its administrator and of the api's role."""

    def __init__(self, postgres: PostgresServer, name: str) -> None:
        self.url = postgres.url(name)
        self.api_url = postgres.url(name, role="tidings_api")
        self.connection: Connection = psycopg.connect(self.url, autocommit=True)

    def insert(self, id_: UUID, body: bytes = b"{}", url: str | None = None) -> None:
        """Insert a submission with two attempts whose starts were reported, and a result."""
        with psycopg.connect(url or self.url, autocommit=True) as connection:
            insert(connection, id_, body)

    def rows(self, table: str) -> list[Any]:
        """All rows of a table, without their partition."""
        query = sql.SQL("SELECT t::text FROM tidings.{} AS t ORDER BY 1").format(sql.Identifier(table))
        return self.connection.execute(query).fetchall()

    def places(self, table: str, id_: UUID) -> set[str]:
        """The partitions that hold rows of a submission."""
        key = "id" if table == "submissions" else "submission_id"
        query = sql.SQL("SELECT tableoid::regclass::text FROM tidings.{} WHERE {} = %s").format(
            sql.Identifier(table), sql.Identifier(key)
        )
        return {row[0].removeprefix("tidings.") for row in self.connection.execute(query, (id_,)).fetchall()}

    def drop(self, month: str) -> None:
        """Drop the partitions, as if the stack had been down for months."""
        for table in TABLES:
            self.connection.execute(sql.SQL("DROP TABLE tidings.{}").format(sql.Identifier(f"{table}_{month}")))

    def make(self) -> Made:
        """Run a round, as the api does it."""
        with psycopg.connect(self.api_url, autocommit=True) as connection:
            return Partitions(lambda statement, values: connection.execute(statement, values).fetchall()).make()

    def one(self, query: LiteralString, *values: object) -> Any:
        row = self.connection.execute(query, values).fetchone()
        assert row is not None
        return row[0]


def insert(connection: Connection, id_: UUID, body: bytes = b"{}") -> None:
    connection.execute(
        "INSERT INTO tidings.submissions (id, tenant, target, body, content_type, fingerprint)"
        " VALUES (%s, 't', 'x', %s, 'application/json', '')",
        (id_, body),
    )
    for number in (1, 2):
        connection.execute(
            "INSERT INTO tidings.attempts (submission_id, number, tenant, ended_at, message_id)"
            " VALUES (%s, %s, 't', now(), 'm')",
            (id_, number),
        )
        connection.execute("INSERT INTO tidings.attempt_starts VALUES (%s, %s, now())", (id_, number))
    connection.execute(
        "INSERT INTO tidings.results (submission_id, event_id, tenant, target, outcome, body, body_size, body_sha256,"
        " submitted_at) VALUES (%s, gen_random_uuid(), 't', 'x', 'succeeded', %s, 1, 'x', now())",
        (id_, body),
    )


@pytest.fixture
def db(postgres: PostgresServer, database: str) -> Iterator[Database]:
    made = Database(postgres, database)
    yield made
    made.connection.close()


@contextmanager
def reader(url: str) -> Iterator[None]:
    """A transaction that has read all tables and stays open, like that of pg_dump or of a Debezium snapshot."""
    with psycopg.connect(url) as connection:
        for table in TABLES:
            connection.execute(sql.SQL("SELECT count(*) FROM tidings.{}").format(sql.Identifier(table)))
        yield


def test_a_row_is_in_the_partition_of_its_month(db: Database) -> None:
    for moment in (NOW, LATER):
        id_ = id_at(moment)
        db.insert(id_)
        for table in TABLES:
            assert db.places(table, id_) == {f"{table}_{month_of(moment)}"}


def test_an_open_reader_does_not_block_inserts(db: Database) -> None:
    db.drop(month_of(LATER))
    ending = threading.Event()
    rounds: list[Made] = []

    def keep() -> None:
        while not ending.is_set():
            rounds.append(db.make())

    with reader(db.url), ThreadPoolExecutor() as pool:
        keeping = pool.submit(keep)
        try:
            with psycopg.connect(db.url, autocommit=True, options="-c statement_timeout=5s") as connection:
                for _ in range(200):
                    insert(connection, id_at(NOW))
        finally:
            ending.set()
        keeping.result(60)
    assert all(made.names == [] and made.busy for made in rounds)
    assert db.make().names == [f"{table}_{month_of(LATER)}" for table in sorted(TABLES, key=TABLES.index)]


def test_rows_of_the_month_leave_the_default_partition_unchanged(db: Database) -> None:
    db.drop(month_of(NOW))
    ids = [id_at(NOW) for _ in range(5)]
    stranger = id_at(datetime(1975, 1, 1, tzinfo=UTC))
    for number, id_ in enumerate([*ids, stranger]):
        db.insert(id_, bytes([number]) * 10_000)
    before = {table: db.rows(table) for table in TABLES}
    assert {table: db.places(table, ids[0]) for table in TABLES} == {table: {f"{table}_default"} for table in TABLES}
    made = db.make()
    assert (made.names, made.moved) == ([f"{table}_{month_of(NOW)}" for table in TABLES], 5 * ROWS)
    assert {table: db.rows(table) for table in TABLES} == before
    for table in TABLES:
        assert {place for id_ in ids for place in db.places(table, id_)} == {f"{table}_{month_of(NOW)}"}
        assert db.places(table, stranger) == {f"{table}_default"}
    # An end is still final, and a new row is stored in the same partition.
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.insert(ids[0])
    assert db.make().names == []


def test_the_partition_of_a_past_month_is_created_as_well(db: Database) -> None:
    id_ = id_at(datetime(2024, 3, 31, 23, 59, 59, tzinfo=UTC))
    db.insert(id_)
    assert db.make().names == [f"{table}_2024_03" for table in TABLES]
    assert db.places("results", id_) == {"results_2024_03"}


def test_a_partition_that_was_created_late_is_like_the_others(db: Database) -> None:
    def shape(month: str) -> Any:
        names = [f"{table}_{month}" for table in TABLES]
        columns = db.one(
            "SELECT json_agg((table_name, column_name, data_type, is_nullable, column_default)::text"
            " ORDER BY table_name, ordinal_position) FROM information_schema.columns WHERE table_name = ANY (%s)",
            names,
        )
        indexes = db.one(
            "SELECT json_agg(indexdef ORDER BY indexname) FROM pg_indexes WHERE tablename = ANY (%s)", names
        )
        checks = db.one(
            "SELECT json_agg(pg_get_constraintdef(c.oid) ORDER BY r.relname, 1) FROM pg_constraint AS c"
            " JOIN pg_class AS r ON r.oid = conrelid WHERE relname = ANY (%s)",
            names,
        )
        return str([columns, indexes, sorted(checks)]).replace(month, "")

    db.drop(month_of(LATER))
    db.insert(id_at(LATER))
    db.make()
    assert shape(month_of(LATER)) == shape(month_of(NOW))


def test_rows_are_inserted_while_others_are_moved_and_each_exists_once(db: Database) -> None:
    db.drop(month_of(NOW))
    with db.connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tidings.submissions (id, tenant, target, body, content_type, fingerprint)"
            " SELECT uuidv7(), 't', 'x', '{}', 'application/json', '' FROM generate_series(1, 7000)"
        )
    ending = threading.Event()
    acknowledged: list[UUID] = []

    def keep() -> None:
        with psycopg.connect(db.url, autocommit=True) as connection:
            while not ending.is_set():
                id_ = id_at(NOW)
                try:
                    insert(connection, id_)
                except (
                    psycopg.errors.CheckViolation
                ):  # it was routed before the change and inserted after it: the api's store repeats it
                    continue
                acknowledged.append(id_)

    with ThreadPoolExecutor() as pool:
        keeping = [pool.submit(keep) for _ in range(3)]
        while True:
            made = db.make()
            if not made.busy:
                break
        ending.set()
        for future in keeping:
            future.result(60)
    assert len(acknowledged) > 0
    assert db.one("SELECT count(*) FROM tidings.submissions_default") == 0
    assert db.one("SELECT count(*) FROM tidings.results") == db.one(
        "SELECT count(DISTINCT submission_id) FROM tidings.results"
    )
    assert db.one("SELECT count(*) FROM tidings.results WHERE submission_id = ANY (%s)", acknowledged) == len(
        acknowledged
    )
    assert db.one("SELECT count(*) >= 7000 + %s FROM tidings.submissions", len(acknowledged)) is True


def test_a_row_that_is_moved_does_not_become_another_event(db: Database) -> None:
    slot = f"s_{db.connection.info.dbname}"
    db.connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    try:
        db.drop(month_of(NOW))
        db.connection.execute(
            "INSERT INTO tidings.submissions (id, tenant, target, body, content_type, fingerprint)"
            " SELECT uuidv7(), 't', 'x', '{}', 'application/json', '' FROM generate_series(1, 3000)"
        )
        db.insert(id_at(NOW))
        assert told(db, slot) == 3000 + PUBLISHED
        assert db.make().moved >= 3000 + ROWS
        assert told(db, slot) == 0
        # Rows of the new partition become events, like all others.
        db.insert(id_at(NOW))
        assert told(db, slot) == PUBLISHED
    finally:
        db.connection.execute("SELECT pg_drop_replication_slot(%s)", (slot,))


def told(db: Database, slot: str) -> int:
    """Inserts, updates and deletions since the last call, as Debezium gets them (protocol: "I", "U", "D")."""
    messages = db.connection.execute(
        "SELECT data FROM pg_logical_slot_get_binary_changes(%s, NULL, NULL, 'proto_version', '1',"
        " 'publication_names', 'tidings_cdc')",
        (slot,),
    ).fetchall()
    kinds = [bytes(message)[:1] for (message,) in messages]
    assert not {b"U", b"D"} & set(kinds)
    return kinds.count(b"I")


def test_migrating_creates_missing_partitions(postgres: PostgresServer, db: Database) -> None:
    db.drop(month_of(NOW))
    postgres.migrate(db.connection.info.dbname)
    id_ = id_at(NOW)
    db.insert(id_)
    assert db.places("attempts", id_) == {f"attempts_{month_of(NOW)}"}


def test_the_list_of_tables_has_all_partitioned_tables(db: Database) -> None:
    partitioned = db.one(
        "SELECT array_agg(relname::text ORDER BY relname) FROM pg_class"
        " WHERE relkind = 'p' AND relnamespace = 'tidings'::regnamespace"
    )
    assert sorted(db.one("SELECT tidings.month_tables()")) == partitioned == sorted(TABLES)


def test_a_time_before_1970_has_the_smallest_id(db: Database) -> None:
    for moment in ("1960-01-01", "0001-01-01"):
        assert db.one("SELECT tidings.uuid_floor(%s::timestamptz)", moment) == UUID(int=0)
