"""The reconciler's connection: every wait for Postgres has a timeout, and a new connection follows each fault."""

from __future__ import annotations

import psycopg
import pytest

from services.reconciler.store import NO_ID, Store
from tests.infra.postgres import PostgresServer
from tests.infra.tcp_proxy import tcp_proxy
from tidings.database.queries import load_queries


# Without a timeout the wait would never end.
@pytest.mark.timeout(360)
def test_a_postgres_that_does_not_respond_is_an_error_until_it_responds_again(
    postgres: PostgresServer, database: str
) -> None:
    with tcp_proxy(postgres.admin_url) as proxy:
        url = proxy.url(postgres.url(database, role="tidings_reconciler"))
        store = Store(url, load_queries("services.reconciler"))
        try:
            assert store.low_water("nobody") == NO_ID
            proxy.swallow()
            with pytest.raises(psycopg.OperationalError):
                store.low_water("nobody")
            proxy.heal()
            assert store.low_water("nobody") == NO_ID
        finally:
            store.close()
