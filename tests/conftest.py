"""Fixtures of all tests: the real servers, started once a run and only when a test asks for them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from psycopg import sql
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests import order
from tests.infra.kafka import Broker, Worker, native_connect, native_kafka
from tests.infra.postgres import TEMPLATE, PostgresServer, native_postgres


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--infra",
        choices=["native", "docker"],
        default="native",
        help="where Postgres, Kafka and Connect come from: this machine, or testcontainers (default: native)",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Also without xdist, so that fixtures are created and ended equally often with and without it."""
    ranks = {name: rank for rank, name in enumerate(order.in_order([item.nodeid for item in items]))}
    items.sort(key=lambda item: ranks[item.nodeid])


class Units(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Distributes the units of tests/order.py in their order. `--dist loadfile` creates this class."""

    def _split_scope(self, nodeid: str) -> str:
        return order.unit_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    if config.getoption("dist") != "loadfile":
        return None
    # xdist's own order begins with the file that has the most tests, and those may be short.
    config.option.loadscopereorder = False
    return Units(config, log)


@pytest.fixture(scope="session")
def run_directory() -> Iterator[Path]:
    """A folder of this run, under /tmp because Postgres runs as another user when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="tidings-tests-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="session")
def docker(pytestconfig: pytest.Config) -> bool:
    """Whether the servers run in containers. testcontainers' cleanup container needs another image, and is not used."""
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    return bool(pytestconfig.getoption("--infra") == "docker")


@pytest.fixture(scope="session")
def postgres(run_directory: Path, docker: bool) -> Iterator[PostgresServer]:
    """A Postgres server with a migrated template, which `database` clones."""
    with choose_postgres(run_directory, docker) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        server.migrate(TEMPLATE)
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The name of a migrated database for this test alone. See `PostgresServer.url`."""
    with postgres.database() as name:
        yield name


@pytest.fixture(scope="session")
def broker(run_directory: Path, docker: bool) -> Iterator[Broker]:
    """The Kafka broker of this run. Tests share it, and use names of their own."""
    with choose_kafka(run_directory, docker) as started:
        yield started


@pytest.fixture(scope="session")
def connect(run_directory: Path, broker: Broker, docker: bool) -> Iterator[Worker]:
    """The Connect worker of this run, with Debezium and without a connector."""
    with choose_connect(run_directory, broker, docker) as started:
        yield started


def choose_postgres(directory: Path, docker: bool) -> AbstractContextManager[PostgresServer]:
    if not docker:
        return native_postgres(directory)
    from tests.infra.docker import docker_postgres  # noqa: PLC0415  reads its settings when it is imported

    return docker_postgres()


def choose_kafka(directory: Path, docker: bool) -> AbstractContextManager[Broker]:
    if not docker:
        return native_kafka(directory)
    from tests.infra.docker import docker_kafka  # noqa: PLC0415

    return docker_kafka()


def choose_connect(directory: Path, broker: Broker, docker: bool) -> AbstractContextManager[Worker]:
    if not docker:
        return native_connect(directory, broker)
    from tests.infra.docker import docker_connect  # noqa: PLC0415

    return docker_connect(broker)
