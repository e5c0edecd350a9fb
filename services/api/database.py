"""The api's connections to Postgres: a pool of them, each with an end of every answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import Connection
from psycopg_pool import ConnectionPool

from tidings.database.postgres import BoundedConnection, bounded, network_of

Pool = ConnectionPool[Connection[Any]]

# The role's statement_timeout (migration 0007) is 20 s and comes first as long as the server is there.
ANSWER_SECONDS = 25.0
# Waiting for a connection of the pool.
POOL_SECONDS = 10.0


@contextmanager
def answering_within(connection: Connection[Any], seconds: float) -> Iterator[None]:
    """A shorter bound for what the block asks."""
    if not isinstance(connection, BoundedConnection):
        raise TypeError(type(connection).__name__)
    usual, connection.answer_seconds = connection.answer_seconds, seconds
    try:
        yield
    finally:
        connection.answer_seconds = usual


def open_pool(
    url: str, *, size_min: int, size_max: int, answer_seconds: float = ANSWER_SECONDS, **options: Any
) -> Pool:
    """A pool of bounded connections in autocommit: a lone statement is then one round trip, where BEGIN and COMMIT make
    it three. `options` are psycopg_pool's.
    """
    return ConnectionPool(
        url,
        connection_class=bounded(answer_seconds),
        min_size=size_min,
        max_size=size_max,
        timeout=POOL_SECONDS,
        kwargs={"autocommit": True, **network_of(url)},
        open=True,
        **options,
    )
