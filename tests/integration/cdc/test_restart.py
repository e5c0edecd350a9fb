"""Postgres restarts: the connector reconnects by itself, and every row becomes one event."""

from __future__ import annotations

from tests.infra.postgres import PostgresServer
from tests.integration.cdc.conftest import Cdc


def test_rows_before_and_after_a_restart_of_postgres_become_one_event_each(cdc: Cdc, postgres: PostgresServer) -> None:
    cdc.register()
    ids = [cdc.submit()]
    cdc.events("submissions", cdc.has(*ids))
    # Twice, as the number of attempts is limited: a success must reset their count.
    for _ in range(2):
        ids.append(cdc.submit())
        postgres.restart()
        ids.append(cdc.submit())
        cdc.events("submissions", cdc.has(*ids), 60)
    events = cdc.events("submissions", cdc.has(*ids))
    assert sorted(event.key for event in events) == sorted(ids)
    state = cdc.connector.state()
    assert state is not None
    assert state.running
