"""A relay whose database stops responding on every connection, and responds again later."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import requests

from tests.destination import Reply, destination
from tests.infra.postgres import PostgresServer
from tests.infra.tcp_proxy import tcp_proxy
from tests.integration.relay.conftest import Relay
from tests.wait import until

# Longer than every deadline of a request, and no longer than clients wait.
ANSWER_SECONDS = 60


def test_requests_are_answered_while_the_database_does_not_respond_and_served_when_it_does(
    postgres: PostgresServer, new_relay: Callable[..., Relay]
) -> None:
    with (
        destination(lambda _: Reply()) as server,
        postgres.database(template="template1") as name,
        tcp_proxy(postgres.url(name)) as proxy,
    ):
        relay = new_relay(RELAY_DATABASE_URL=proxy.url(postgres.url(name)))

        def publish(path: str) -> requests.Response:
            headers = {"Upstash-Method": "POST"}
            url = f"{relay.url}/v2/publish/{server.url}{path}"
            return relay.session.post(url, headers=headers, timeout=ANSWER_SECONDS)

        assert publish("/before").status_code == 200
        until(lambda: server.to("/before"))
        proxy.swallow()
        assert publish("/silent").status_code >= 500
        # Readiness does not query the database: it ends with the lease, or when a claim is overdue.
        until(lambda: relay.session.get(f"{relay.url}/readyz", timeout=ANSWER_SECONDS).status_code == 503, 60)
        proxy.heal()
        until(lambda: publish("/after").status_code == 200, 60)
        until(lambda: server.to("/after"), 60)
        # A request without an answer is committed or not. In both cases no lock or session remains.
        with psycopg.connect(postgres.url(name)) as connection:
            until(lambda: connection.execute("SELECT FROM relay.messages WHERE state = 'waiting'").fetchall() == [], 60)
