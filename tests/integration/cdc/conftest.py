"""A database with its own connector, slot and topics, so that tests can break it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
import requests
from kafka import KafkaConsumer
from kafka.structs import TopicPartition
from psycopg import sql

from services.watcher.connector import Connector, configuration
from tests.infra.kafka import Broker, Worker
from tests.infra.postgres import ROLE_PASSWORD, PostgresServer
from tests.process import ROOT
from tests.wait import until

FILE = ROOT / "debezium" / "connector.json"
OWN_PREFIX = "tidings.cdc"


@dataclass(frozen=True)
class Event:
    """A change record in Kafka."""

    key: str
    envelope: Mapping[str, Any]

    @property
    def row(self) -> Mapping[str, Any]:
        return dict(self.envelope["after"])


class Cdc:
    """A migrated database and the connector that reads it, which `register()` registers."""

    def __init__(self, postgres: PostgresServer, database: str, worker: Worker, broker: Broker) -> None:
        self._postgres, self.database, self._worker, self._broker = postgres, database, worker, broker
        self.name = f"cdc-{database.replace('_', '-')}"
        self.slot = f"slot_{database}"
        self.prefix = f"{database}.cdc"
        self.connector = Connector(worker.url, self.name, worker.password)
        self.url = postgres.url(database)
        # The partition of each submission.
        self.partitions: dict[str, str] = {}

    def watcher_environment(self) -> dict[str, str]:
        """The settings of a watcher for this database, worker and broker."""
        address = psycopg.conninfo.conninfo_to_dict(self.url)
        return {
            "TIDINGS_KAFKA": self._broker.bootstrap,
            "TIDINGS_CONNECT_URL": self._worker.url,
            "TIDINGS_CONNECT_PASSWORD": self._worker.password or "",
            "TIDINGS_CDC_DATABASE_HOST": str(address["host"]),
            "TIDINGS_CDC_DATABASE_PORT": str(address["port"]),
            "TIDINGS_CDC_DATABASE_NAME": self.database,
            "TIDINGS_CDC_DATABASE_PASSWORD": ROLE_PASSWORD,
        }

    def config(self, **changed: str) -> dict[str, str]:
        """The file's configuration with the names of this test. Keyword arguments: `snapshot_mode` is `snapshot.mode`."""
        address = psycopg.conninfo.conninfo_to_dict(self._postgres.url(self.database))
        values = {
            "TIDINGS_CDC_DATABASE_HOST": str(address["host"]),
            "TIDINGS_CDC_DATABASE_PORT": str(address["port"]),
            "TIDINGS_CDC_DATABASE_NAME": self.database,
        }
        config = {key: self._renamed(value) for key, value in configuration(FILE, values).items()}
        return config | {"slot.name": self.slot} | {key.replace("_", "."): value for key, value in changed.items()}

    def _renamed(self, value: str) -> str:
        regex = OWN_PREFIX.replace(".", "\\.")
        return value.replace(regex, self.prefix.replace(".", "\\.")).replace(OWN_PREFIX, self.prefix)

    def register(self, **changed: str) -> None:
        """Register the connector, and wait until it streams: a row that is inserted earlier would be part of the
        snapshot.
        """
        self.connector.register(self.config(**changed))
        self.wait_running()
        until(lambda: self.slot_value("active"), 30)

    def wait_running(self, seconds: float = 60) -> None:
        until(lambda: (state := self.connector.state()) is not None and state.running, seconds)

    def wait_failed(self, seconds: float = 60) -> str:
        """Wait until the task has failed; return the reason."""
        until(lambda: (state := self.connector.state()) is not None and state.failed, seconds)
        state = self.connector.state()
        assert state is not None
        return state.trace

    def stop(self) -> None:
        """End the task and wait until its slot is inactive. The position remains."""
        self._order("PUT", "/stop")
        until(lambda: not self.slot_value("active"), 30)

    def resume(self) -> None:
        self._order("PUT", "/resume")

    def remove(self) -> None:
        self._order("DELETE", "")
        # A task that is being started acquires the slot once more before it ends.
        until(self._slot_dropped, 30)

    def _slot_dropped(self) -> bool:
        try:
            self.drop_slot()
        except psycopg.errors.ObjectInUse:
            return False
        return True

    def _order(self, method: str, path: str) -> None:
        answer = requests.request(
            method, f"{self._worker.url}/connectors/{self.name}{path}", auth=self._worker.login, timeout=30
        )
        assert answer.status_code < 300 or answer.status_code == 404, answer.text

    @contextmanager
    def wal_kept(self, size: str) -> Iterator[None]:
        """During the block, Postgres keeps at most `size` of WAL for a slot that is not read."""
        self.execute(f"ALTER SYSTEM SET max_slot_wal_keep_size = '{size}'")
        self.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            self.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            self.execute("SELECT pg_reload_conf()")

    def lose_slot(self) -> None:
        """Write WAL until Postgres invalidates the slot. Its reader must have been stopped."""
        with self.wal_kept("1MB"):
            for _ in range(4):
                self.execute("INSERT INTO tidings.heartbeats VALUES (clock_timestamp())")
                self.execute("SELECT pg_switch_wal()")
            self.execute("CHECKPOINT")
            until(lambda: self.slot_value("wal_status") == "lost")

    def execute(self, statement: str, *parameters: object) -> list[Any]:
        with psycopg.connect(self._postgres.url(self.database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def slot_value(self, column: str) -> Any:
        query = sql.SQL("SELECT {} FROM pg_replication_slots WHERE slot_name = %s").format(sql.Identifier(column))
        with psycopg.connect(self._postgres.url(self.database), autocommit=True) as connection:
            row = connection.execute(query, (self.slot,)).fetchone()
        return None if row is None else row[0]

    def drop_slot(self) -> None:
        self.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", self.slot
        )

    def submit(self, since: str = "0") -> str:
        """Insert a submission as old as `since`, an interval of Postgres; return its id, which has that time."""
        [(submission_id, partition)] = self.execute(
            "INSERT INTO tidings.submissions (id, tenant, target, body, content_type, idempotency_key, fingerprint)"
            " VALUES (uuidv7(- %s::interval), 'default', 'demo', %s, 'application/json', 'private-key', '\\x00')"
            " RETURNING id::text, tableoid::regclass::text",
            since,
            b'{"prompt": "private-prompt"}',
        )
        self.partitions[str(submission_id)] = str(partition).removeprefix("tidings.")
        return str(submission_id)

    def events(self, table: str, enough: Callable[[list[Event]], object], seconds: float = 30) -> list[Event]:
        """Read all committed events of a table's topic until `enough` is true for them."""
        consumer = KafkaConsumer(
            bootstrap_servers=self._broker.bootstrap, isolation_level="read_committed", enable_auto_commit=False
        )
        topic, found = f"{self.prefix}.{table}", list[Event]()
        try:
            numbers = until(lambda: consumer.partitions_for_topic(topic), seconds)
            consumer.assign([TopicPartition(topic, number) for number in numbers or ()])
            consumer.seek_to_beginning()

            def read() -> object:
                for records in consumer.poll(timeout_ms=100).values():
                    found.extend(Event(r.key.decode(), json.loads(r.value)) for r in records)
                return enough(found)

            until(read, seconds)
        finally:
            consumer.close()
        return found

    def has(self, *submission_ids: str) -> Callable[[list[Event]], bool]:
        return lambda events: set(submission_ids) <= {event.key for event in events}


@pytest.fixture
def cdc(postgres: PostgresServer, connect: Worker, broker: Broker) -> Iterator[Cdc]:
    with unregistered(postgres, connect, broker) as made:
        yield made


@contextmanager
def unregistered(postgres: PostgresServer, worker: Worker, broker: Broker) -> Iterator[Cdc]:
    with postgres.database() as database:
        made = Cdc(postgres, database, worker, broker)
        try:
            yield made
        finally:
            made.remove()
