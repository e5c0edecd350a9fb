"""Fixtures of all tests: the real servers, started once a run and only when a test asks for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql

from tests.infra.kafka import Broker, Worker, native_connect, native_kafka
from tests.infra.postgres import TEMPLATE, PostgresServer, native_postgres


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--infra",
        choices=["native", "docker"],
        default="native",
        help="where Postgres, Kafka and Connect come from: this machine, or testcontainers (default: native)",
    )


@pytest.fixture(scope="session")
def run_directory() -> Iterator[Path]:
    """A folder of this run, under /tmp because Postgres runs as another user when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="tidings-tests-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="session")
def postgres(run_directory: Path) -> Iterator[PostgresServer]:
    """A Postgres server, with the migrated template that `database` clones."""
    with native_postgres(run_directory) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        server.migrate(TEMPLATE)
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The name of a migrated database of this test alone; see `PostgresServer.url`."""
    with postgres.database() as name:
        yield name


@pytest.fixture(scope="session")
def broker(run_directory: Path) -> Iterator[Broker]:
    """A Kafka broker of this run. Tests share it, and keep apart by names of their own."""
    with native_kafka(run_directory) as started:
        yield started


@pytest.fixture(scope="session")
def connect(run_directory: Path, broker: Broker) -> Iterator[Worker]:
    """A Connect worker of this run, with Debezium; without any connector."""
    with native_connect(run_directory, broker) as started:
        yield started
