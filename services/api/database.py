"""A connection to Postgres on which no wait is without an end: connecting, an answer, a peer that is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from psycopg import Connection, OperationalError
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout
from psycopg_pool import ConnectionPool

Pool = ConnectionPool[Connection[Any]]
RV = TypeVar("RV")

CONNECT_SECONDS = 5
# The role's statement_timeout (migration 0006) is 20 s and comes first as long as the server is there.
ANSWER_SECONDS = 25.0
# Of libpq. The kernel gives up a peer whose acknowledgements stay away; ANSWER_SECONDS is for the peer, or the proxy on
# the way, that acknowledges everything and answers nothing.
TCP = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# Waiting for a connection of the pool.
POOL_SECONDS = 10.0


class BoundedConnection(Connection[Any]):
    """Closes itself when one answer takes longer than `answer_seconds`; a pool then makes another in its place."""

    answer_seconds = ANSWER_SECONDS

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As psycopg's, with an end. Raises `OperationalError`; whether the statement was carried out is not known."""
        try:
            return super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)
        except _WaitTimeout:
            # Without a word to the server: a cancel would wait for the same silent peer.
            self.pgconn.finish()
            raise OperationalError(f"no answer within {self.answer_seconds:g} s") from None


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


def bounded(answer_seconds: float) -> type[BoundedConnection]:
    """A class of connections, as a pool makes connections of a class."""
    return type("BoundedConnection", (BoundedConnection,), {"answer_seconds": answer_seconds})


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
        kwargs={**TCP, "autocommit": True},
        open=True,
        **options,
    )
