"""Transactions on the relay's database: each within a deadline, and repeated when the database says that this helps."""

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

# A deadlock or a partition that was just dropped is over by the second try; the others are for a busy database.
TRIES = 4
_AGAIN = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)

# The deadline of a transaction that somebody waits for: longer than a slow disk takes, shorter than clients wait.
REQUEST_SECONDS = 10.0
# The deadline of claims, endings and the janitor: what is given up then is done again as a whole, with 500 endings or
# 5000 rows, so it is given up later.
ENGINE_SECONDS = 30.0
# A row's lock is held for one transaction, of milliseconds. The server's own bounds are below the client's, as the
# connection lives on then.
LOCK_SECONDS = 5.0
MARGIN = 0.9
# How long a client waits for a connection, and how long one that failed is tried again in the background before the
# next client's wish starts anew: the pauses between tries double, and must not outlast the fault.
WAIT_SECONDS = 10.0
RECONNECT_SECONDS = 5.0
CONFIGURE_SECONDS = 5.0


class Database:
    """`run` is one transaction; `fetch` and `execute` are one statement. `seconds` bounds each try once it has a
    connection: `DeadlineError` then, a `psycopg.OperationalError` as any other loss of the database.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._returns: set[asyncio.Task[None]] = set()

    async def run(self, work: Callable[[AsyncConnection[Any]], Awaitable[T]], *, seconds: float = REQUEST_SECONDS) -> T:
        """Commit what `work` does. It may be called again from its beginning, so it must not keep state."""

        async def transaction() -> T:
            async with self._connection(seconds) as connection, connection.transaction():
                return await work(connection)

        return await self._repeated(transaction)

    async def fetch(
        self, statement: LiteralString, parameters: Mapping[str, Any], *, seconds: float = REQUEST_SECONDS
    ) -> list[Row]:
        """The rows of one statement, by column name. It is a transaction of its own: one round trip, not three."""

        async def one() -> list[Row]:
            async with self._connection(seconds) as connection:
                return await rows(connection, statement, parameters)

        return await self._repeated(one)

    async def execute(
        self, statement: LiteralString, parameters: Mapping[str, Any], *, seconds: float = REQUEST_SECONDS
    ) -> int:
        """One statement, as with `fetch`; how many rows it touched."""

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
        """A connection out of the pool. The pool is asked in a task of its own, which a cancellation does not reach:
        psycopg_pool 3.3 waits by `asyncio.wait_for`, which before Python 3.12 may swallow it, and a connection whose
        return is cancelled is lost to the pool.
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
        """A connection out of the pool; those that the server has closed meanwhile are replaced without a pause."""
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
                await self.execute("SELECT relay.make_partitions(2)", {})
        raise AssertionError("unreachable")


def new_pool(
    url: str,
    *,
    connections_max: int,
    timeout_seconds: float = WAIT_SECONDS,
    seconds: float = ENGINE_SECONDS,
    prepared: Prepared = "auto",
) -> Pool:
    """A pool that is still closed. Its connections commit each statement, unless a transaction is begun.

    `timeout_seconds`: how long a connection is waited for. The server ends statements a little before `seconds`, the
    longest deadline that the pool is used with. `prepared`: whether statements are prepared; `auto`: unless a pooler
    stands before the server, as prepared statements stay with a session of the server.
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
    """The rows of one statement within a transaction, by column name. Binary, as bodies are."""
    cursor = connection.cursor(row_factory=dict_row, binary=True)
    return await (await cursor.execute(statement, parameters)).fetchall()


def queries(noun: str) -> Mapping[str, LiteralString]:
    """The statements of `<noun>.sql` beside this file."""
    return load_queries("services.relay.store", f"{noun}.sql")
