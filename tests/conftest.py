"""Fixtures of all tests: the real servers, started once a run and only when a test asks for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql

from stack.jvm import Jvm
from tests.infra.kafka import native_jvm, native_kafka
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
def jvm() -> Jvm:
    """The Java and the jars that Kafka and Connect run with; fetched when they are not there."""
    return native_jvm()


@pytest.fixture(scope="session")
def kafka(run_directory: Path, jvm: Jvm) -> Iterator[str]:
    """The bootstrap servers of a broker of this run; it makes no topic by itself."""
    with native_kafka(run_directory, jvm) as bootstrap_servers:
        yield bootstrap_servers
