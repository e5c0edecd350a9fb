"""The watcher reports within seconds a Postgres that does not respond, and checks it again when it responds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.watcher.slot import DatabaseUnavailableError, Slot
from tests.infra.postgres import PostgresServer
from tests.infra.tcp_proxy import TcpProxy, tcp_proxy
from tidings.database.queries import load_queries


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[TcpProxy]:
    with tcp_proxy(postgres.admin_url) as started:
        yield started


# Without a timeout the wait would never end.
@pytest.mark.timeout(240)
def test_a_postgres_that_does_not_respond_is_unavailable_until_it_responds(
    postgres: PostgresServer, database: str, proxy: TcpProxy
) -> None:
    url = proxy.url(postgres.url(database, role="tidings_cdc"))
    slot = Slot(url, load_queries("services.watcher"), slot="nobody", publication="tidings_cdc")
    try:
        assert slot.state().published
        proxy.swallow()
        for _ in ("on an open connection", "on a new one"):
            with pytest.raises(DatabaseUnavailableError):
                slot.state()
        proxy.heal()
        assert slot.state().published
    finally:
        slot.close()
