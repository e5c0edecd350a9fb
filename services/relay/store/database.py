"""Transactions on the relay's database, repeated when the database says that trying again is right."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from tidings.queries import load_queries

Pool = AsyncConnectionPool[AsyncConnection[Any]]
Row = dict[str, Any]
T = TypeVar("T")

# A deadlock or a partition that was just dropped is over by the second try; more tries would hide a fault.
TRIES = 4
_AGAIN = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)


class Database:
    """`run` is one transaction; `fetch` and `execute` are one statement."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def run(self, work: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        """Commit what `work` does. It may be called again from its beginning, so it must not keep state."""

        async def transaction() -> T:
            async with self._pool.connection() as connection, connection.transaction():
                return await work(connection)

        return await self._repeated(transaction)

    async def fetch(self, statement: LiteralString, parameters: Mapping[str, Any]) -> list[Row]:
        """The rows of one statement, by column name. It is a transaction of its own: one round trip, not three."""

        async def one() -> list[Row]:
            async with self._pool.connection() as connection:
                return await rows(connection, statement, parameters)

        return await self._repeated(one)

    async def execute(self, statement: LiteralString, parameters: Mapping[str, Any]) -> int:
        """One statement, as with `fetch`; how many rows it touched."""

        async def one() -> int:
            async with self._pool.connection() as connection:
                return (await connection.execute(statement, parameters)).rowcount

        return await self._repeated(one)

    async def _repeated(self, attempt: Callable[[], Awaitable[T]]) -> T:
        for left in range(TRIES - 1, -1, -1):
            try:
                return await attempt()
            except _AGAIN:
                if not left:
                    raise
            except psycopg.errors.CheckViolation as error:
                if not left or "no partition of relation" not in str(error):
                    raise
                await self.execute("SELECT relay.make_partitions(2)", {})
        raise AssertionError("unreachable")


def new_pool(url: str, *, connections_max: int, timeout_seconds: float = 10.0) -> Pool:
    """A pool that is still closed. Its connections commit each statement, unless a transaction is begun."""
    least = min(4, connections_max)
    # Attempts to connect come at ever longer intervals until `reconnect_timeout`; the next request begins anew. By
    # default that is 300 s, and after a long outage nothing would be tried for minutes.
    return AsyncConnectionPool(
        url,
        min_size=least,
        max_size=connections_max,
        timeout=timeout_seconds,
        reconnect_timeout=timeout_seconds,
        open=False,
        kwargs={"autocommit": True},
    )


async def rows(connection: AsyncConnection[Any], statement: LiteralString, parameters: Mapping[str, Any]) -> list[Row]:
    """The rows of one statement within a transaction, by column name. Binary, as bodies are."""
    cursor = connection.cursor(row_factory=dict_row, binary=True)
    return await (await cursor.execute(statement, parameters)).fetchall()


def queries(noun: str) -> Mapping[str, LiteralString]:
    """The statements of `<noun>.sql` beside this file."""
    return load_queries("services.relay.store", f"{noun}.sql")
