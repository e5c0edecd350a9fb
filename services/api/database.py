"""The api's connections to Postgres: a pool in which every wait for a response is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import Connection
from psycopg_pool import ConnectionPool

from tidings.database.postgres import BoundedConnection, bounded, network_of

Pool = ConnectionPool[Connection[Any]]

# The statement_timeout of the role (migration 0007) is 20 s and expires first while the server responds.
ANSWER_SECONDS = 25.0
# The timeout for getting a connection from the pool.
POOL_SECONDS = 10.0


@contextmanager
def answering_within(connection: Connection[Any], seconds: float) -> Iterator[None]:
    """Apply a shorter timeout to the statements of the block."""
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
    """Open a pool of bounded connections in autocommit: a single statement then takes one round trip; BEGIN and COMMIT
    would make it three. `options` are psycopg_pool's.
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
