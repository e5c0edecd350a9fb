"""The proxy with which other tests cause faults: a real client of a real Postgres observes each fault."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.infra.postgres import PostgresServer
from tests.infra.tcp_proxy import TcpProxy, tcp_proxy
from tests.wait import until


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[TcpProxy]:
    with tcp_proxy(postgres.admin_url) as started:
        yield started


def test_forwards_and_cuts(postgres: PostgresServer, proxy: TcpProxy, database: str) -> None:
    url = proxy.url(postgres.url(database))
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert proxy.cut() == 1
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    until(lambda: proxy.connections == 0)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_refuses_until_healed(postgres: PostgresServer, proxy: TcpProxy, database: str) -> None:
    url = proxy.url(postgres.url(database))
    proxy.refuse()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=5)
    proxy.heal()
    psycopg.connect(url).close()


def test_a_swallowed_connection_stays_open_and_silent(postgres: PostgresServer, proxy: TcpProxy, database: str) -> None:
    url = proxy.url(postgres.url(database))
    proxy.swallow()
    with pytest.raises(psycopg.OperationalError, match="timeout"):
        psycopg.connect(url, connect_timeout=2)
    assert proxy.connections >= 1
    proxy.heal()
    psycopg.connect(url).close()


@pytest.mark.parametrize("executed_before", [0, 10], ids=["by text", "by a prepared statement"])
def test_a_lost_answer_belongs_to_a_statement_that_committed(
    postgres: PostgresServer, proxy: TcpProxy, database: str, executed_before: int
) -> None:
    direct = postgres.url(database)
    with psycopg.connect(direct, autocommit=True) as admin:
        admin.execute("CREATE TABLE t (n integer)")
        with psycopg.connect(proxy.url(direct), autocommit=True) as connection:
            for _ in range(executed_before):
                connection.execute("INSERT INTO t VALUES (%s)", (1,))
            proxy.lose_answers(b"INSERT INTO t")
            with pytest.raises(psycopg.OperationalError):
                connection.execute("INSERT INTO t VALUES (%s)", (1,))
        assert proxy.lost == 1
        assert admin.execute("SELECT count(*) FROM t").fetchone() == (executed_before + 1,)
