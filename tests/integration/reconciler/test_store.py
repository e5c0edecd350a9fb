"""The reconciler's connection: no wait for Postgres is without an end, and each fault is followed by a new connection."""

from __future__ import annotations

import psycopg
import pytest

from services.reconciler.store import NO_ID, Store
from tests.infra.postgres import PostgresServer
from tests.infra.tcp_proxy import tcp_proxy
from tidings.database.queries import load_queries


# It would wait for ever.
@pytest.mark.timeout(360)
def test_a_postgres_that_vanished_is_an_error_until_it_is_back(postgres: PostgresServer, database: str) -> None:
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
