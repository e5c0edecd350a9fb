"""The connector and the watcher connect to a Postgres with TLS, and refuse one with a certificate of an unknown
authority.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests.certificates import authority
from tests.infra.postgres import PostgresServer
from tests.infra.tls_postgres import TlsPostgres, tls_postgres
from tests.integration.cdc.conftest import Cdc
from tests.integration.cdc.test_watcher import Watching
from tests.process import started
from tests.wait import until


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    return tmp_path / "server" / "ca.pem"


@pytest.fixture
def secure(postgres: PostgresServer, cdc: Cdc, ca_file: Path, docker: bool) -> Iterator[TlsPostgres]:
    if docker:
        pytest.skip("a Connect in a container does not have this machine's file of the authority")
    ca_file.parent.mkdir()
    _, context = authority(ca_file.parent)
    address = psycopg.conninfo.conninfo_to_dict(postgres.url(cdc.database))
    with tls_postgres(context, int(str(address["port"]))) as made:
        yield made


@pytest.fixture
def watch(cdc: Cdc, secure: TlsPostgres, tmp_path: Path) -> Iterator[Callable[[Path], Watching]]:
    """Start a watcher that trusts the authority of this file."""
    with ExitStack() as stack:

        def start(ca_file: Path) -> Watching:
            environment = cdc.watcher_environment() | {
                "TIDINGS_CDC_DATABASE_PORT": str(secure.port),
                "TIDINGS_CDC_DATABASE_SSLMODE": "verify-full",
                "TIDINGS_CDC_DATABASE_CA_FILE": str(ca_file),
            }
            made = Watching(cdc, environment, tmp_path)
            made.write(cdc.config(database_port=str(secure.port)))
            stack.enter_context(started(made.process))
            return made

        yield start


def test_rows_become_changes_over_tls(
    cdc: Cdc, secure: TlsPostgres, watch: Callable[[Path], Watching], ca_file: Path
) -> None:
    watching = watch(ca_file)
    until(lambda: cdc.slot_value("active"), 60)
    submission_id = cdc.submit()
    assert [event.key for event in cdc.events("submissions", cdc.has(submission_id), 60)] == [submission_id]
    until(lambda: not watching.faults(), 30)
    assert secure.encrypted >= 2  # the connections of Debezium and of the watcher


def test_a_server_with_a_certificate_of_an_unknown_authority_is_refused(
    cdc: Cdc, secure: TlsPostgres, watch: Callable[[Path], Watching], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other, _ = authority(tmp_path / "other")
    watching = watch(other)
    assert watching.process.wait(60) == 1
    assert "path validation failed" in watching.process.log.read_text()
    assert secure.encrypted == 0
    assert cdc.slot_value("active") is None
