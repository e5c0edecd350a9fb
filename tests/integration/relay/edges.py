"""A relay with a faulty database, observed from outside: at the destination, and in its tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import requests

from tests.destination import Destination
from tests.infra.postgres import PostgresServer
from tests.infra.tcp_proxy import TcpProxy, tcp_proxy
from tests.integration.relay.conftest import Relay

# The number of messages per request.
BATCH = 500


class Edge:
    """A database of its own with a proxy in front. `settings` are for a relay that connects through the proxy."""

    def __init__(self, url: str, proxy: TcpProxy) -> None:
        self.url = url
        self.proxy = proxy

    @property
    def settings(self) -> dict[str, str]:
        return {"RELAY_DATABASE_URL": self.proxy.url(self.url)}

    @property
    def direct(self) -> dict[str, str]:
        """The settings for a relay that connects without the proxy."""
        return {"RELAY_DATABASE_URL": self.url}

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(statement.encode()).fetchall()

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Lock the table against readers and writers during the block."""
        with psycopg.connect(self.url) as connection:
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
            yield

    def states(self) -> Counter[str]:
        """The number of messages by state. Ended messages are kept for a minute."""
        return Counter(dict(self.rows("SELECT state, count(*) FROM relay.messages GROUP BY state")))

    def dead_letters(self) -> int:
        return int(self.rows("SELECT count(*) FROM relay.dead_letters")[0][0])


@contextmanager
def edge(postgres: PostgresServer) -> Iterator[Edge]:
    with postgres.database(template="template1") as name, tcp_proxy(postgres.url(name)) as proxy:
        yield Edge(postgres.url(name), proxy)


def publish(relay: Relay, server: Destination, paths: Sequence[str], **headers: str) -> list[str]:
    """Publish a message for each path in few requests. A request that fails is repeated until it is accepted. Return
    the ids.
    """
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    ids: list[str] = []
    for start in range(0, len(paths), BATCH):
        items = [
            {"destination": server.url + path, "headers": {"Upstash-Deduplication-Id": path.strip("/")} | named}
            for path in paths[start : start + BATCH]
        ]
        ids += [item["messageId"] for item in accepted(relay, items)]
    return ids


def accepted(relay: Relay, items: Sequence[dict[str, Any]], tries: int = 60) -> list[dict[str, Any]]:
    for _ in range(tries):
        answer = relay.session.post(f"{relay.url}/v2/batch", json=items, timeout=60)
        if answer.ok:
            return list(answer.json())
        assert answer.status_code >= 500, answer.text
    raise AssertionError(f"still {answer.status_code} {answer.text}")


def calls(server: Destination) -> Counter[str]:
    """The number of calls of each path."""
    return Counter(received.path for received in list(server.received))


def log(relay: Relay) -> str:
    return relay.process.log.read_text()


def ready(relay: Relay) -> Callable[[], bool]:
    return lambda: requests.get(f"{relay.url}/readyz", timeout=30).status_code == 200
