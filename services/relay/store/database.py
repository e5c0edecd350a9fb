"""Transactions on the relay's database. Each has a deadline, and is repeated when the database's error suggests a
retry.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, LiteralString, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from services.relay.store.deadline import Deadline, usable
from tidings.database.postgres import network_of
from tidings.database.queries import load_queries

Pool = AsyncConnectionPool[AsyncConnection[Any]]
Prepared = Literal["auto", "on", "off"]
Row = dict[str, Any]
T = TypeVar("T")

# A deadlock, or a partition that was just dropped, is resolved by the second try. The others are for a busy database.
TRIES = 4
_AGAIN = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)

# The deadline of a transaction that a client waits for: longer than a slow disk takes, shorter than clients wait.
REQUEST_SECONDS = 10.0
# The deadline of claims, endings and the janitor. It is longer, as an abandoned transaction is repeated as a whole,
# with 500 endings or 5000 rows.
ENGINE_SECONDS = 30.0
# A row is locked for one transaction, of milliseconds. The server's own timeouts are shorter than the client's, as the
# connection survives them.
LOCK_SECONDS = 5.0
MARGIN = 0.9
# How long a client waits for a connection, and how long the pool retries a failed connection in the background before
# the next client's request starts over. The pauses between retries double, and must not outlast the fault.
WAIT_SECONDS = 10.0
RECONNECT_SECONDS = 5.0
CONFIGURE_SECONDS = 5.0


class Database:
    """`run` is one transaction; `fetch` and `execute` are one statement. `seconds` bounds each try once it has a
    connection. After that it raises `DeadlineError`, a `psycopg.OperationalError` like any other loss of the database.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._returns: set[asyncio.Task[None]] = set()

    async def run(self, work: Callable[[AsyncConnection[Any]], Awaitable[T]], *, seconds: float = REQUEST_SECONDS) -> T:
        """Commit the effects of `work`. It may be called again from the start, so it must not keep state."""

        async def transaction() -> T:
            async with self._connection(seconds) as connection, connection.transaction():
                return await work(connection)

        return await self._repeated(transaction)

    async def fetch(
        self, statement: LiteralString, parameters: Mapping[str, Any], *, seconds: float = REQUEST_SECONDS
    ) -> list[Row]:
        """The rows of one statement, by column name. The statement is its own transaction: one round trip instead of
        three.
        """

        async def one() -> list[Row]:
            async with self._connection(seconds) as connection:
                return await rows(connection, statement, parameters)

        return await self._repeated(one)

    async def execute(
        self, statement: LiteralString, parameters: Mapping[str, Any], *, seconds: float = REQUEST_SECONDS
    ) -> int:
        """Run one statement, as `fetch` does. Returns how many rows it touched."""

        async def one() -> int:
            async with self._connection(seconds) as connection:
                return (await connection.execute(statement, parameters)).rowcount

        return await self._repeated(one)

    @asynccontextmanager
    async def _connection(self, seconds: float) -> AsyncIterator[AsyncConnection[Any]]:
        connection = await self._taken()
        try:
            with Deadline(connection, seconds):
                async with connection:
                    yield connection
        finally:
            await asyncio.wait([self._returned(connection)])

    async def _taken(self) -> AsyncConnection[Any]:
        """Take a connection from the pool. This runs in a separate task that a cancellation does not reach:
        psycopg_pool 3.3 waits with `asyncio.wait_for`, which may swallow the cancellation before Python 3.12, and the
        pool loses a connection whose return is cancelled.
        """
        taking = asyncio.create_task(self._usable())
        try:
            await asyncio.wait([taking])
        except asyncio.CancelledError:
            taking.add_done_callback(self._unwanted)
            raise
        return taking.result()

    def _unwanted(self, taking: asyncio.Task[AsyncConnection[Any]]) -> None:
        if not taking.cancelled() and taking.exception() is None:
            self._returned(taking.result())

    def _returned(self, connection: AsyncConnection[Any]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._pool.putconn(connection))
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)
        return task

    async def _usable(self) -> AsyncConnection[Any]:
        """Take a connection from the pool. Connections that the server has closed meanwhile are replaced without a
        pause.
        """
        for _ in range(self._pool.max_size):
            connection = await self._pool.getconn()
            if usable(connection):
                return connection
            await connection.close()
            await self._pool.putconn(connection)
        return await self._pool.getconn()

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
                await self.execute(queries("janitor")["make_partitions"], {})
        raise AssertionError("unreachable")


def new_pool(
    url: str,
    *,
    connections_max: int,
    timeout_seconds: float = WAIT_SECONDS,
    seconds: float = ENGINE_SECONDS,
    prepared: Prepared = "auto",
) -> Pool:
    """Create a pool, still closed. Its connections commit each statement, unless a transaction is started.

    `timeout_seconds`: how long a caller waits for a connection. The server ends statements slightly before `seconds`,
    which is the longest deadline that the pool is used with. `prepared`: whether statements are prepared; `auto`:
    unless a pooler is in front of the server, as prepared statements belong to a session of the server.
    """
    return AsyncConnectionPool(
        url,
        min_size=min(4, connections_max),
        max_size=connections_max,
        timeout=timeout_seconds,
        reconnect_timeout=min(timeout_seconds, RECONNECT_SECONDS),
        open=False,
        configure=partial(_configure, seconds=seconds, prepared=prepared),
        kwargs={"autocommit": True, **network_of(url)},
    )


async def _configure(connection: AsyncConnection[Any], *, seconds: float, prepared: Prepared) -> None:
    parameters = {
        "pid": connection.info.backend_pid,
        "statement_ms": round(seconds * MARGIN * 1000),
        "lock_ms": round(LOCK_SECONDS * 1000),
        "idle_ms": round(seconds * 1000),
    }
    cursor = connection.cursor(row_factory=dict_row)
    with Deadline(connection, CONFIGURE_SECONDS):
        await cursor.execute(queries("database")["configure"], parameters, prepare=False)
        found = await cursor.fetchall()
    if prepared == "off" or (prepared == "auto" and not found[0]["direct"]):
        connection.prepare_threshold = None


async def rows(connection: AsyncConnection[Any], statement: LiteralString, parameters: Mapping[str, Any]) -> list[Row]:
    """The rows of one statement within a transaction, by column name. Binary, since bodies are binary."""
    cursor = connection.cursor(row_factory=dict_row, binary=True)
    return await (await cursor.execute(statement, parameters)).fetchall()


def queries(noun: str) -> Mapping[str, LiteralString]:
    """The statements of `<noun>.sql` in this folder, with `/* facts */` replaced by the list of columns."""
    facts = load_queries("services.relay.store", "columns.sql")["facts"]
    statements = load_queries("services.relay.store", f"{noun}.sql")
    return {name: text.replace("/* facts */", facts) for name, text in statements.items()}
