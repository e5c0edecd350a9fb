"""The relay's connections with a database that answers late, not at all, or behind a pooler."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from services.relay.store.database import Database, new_pool
from tests.infra.tcp_proxy import TcpProxy, tcp_proxy

# Longer than every timeout of the relay: a wait that lasts this long has none.
BOUND_SECONDS = 60.0
ONE = "SELECT 1 AS one"
SETTINGS = (
    "SELECT name, setting FROM pg_settings WHERE name IN"
    " ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout')"
)

Story = Callable[[Database], Awaitable[Any]]


def tell(url: str, story: Story, *, connections_max: int = 2) -> None:
    async def main() -> None:
        async with new_pool(url, connections_max=connections_max) as pool:
            await asyncio.wait_for(story(Database(pool)), BOUND_SECONDS)

    asyncio.run(main())


async def recovered(database: Database) -> None:
    """Wait until a statement is answered."""
    deadline = time.monotonic() + BOUND_SECONDS
    while True:
        try:
            assert await database.fetch(ONE, {}) == [{"one": 1}]
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
        else:
            return


async def in_transaction(database: Database, proxy: TcpProxy) -> None:
    async def work(connection: AsyncConnection[Any]) -> None:
        proxy.swallow()
        await connection.execute(ONE)

    await database.run(work, seconds=1.0)


async def in_statement(database: Database, proxy: TcpProxy) -> None:
    proxy.swallow()
    await database.fetch(ONE, {}, seconds=1.0)


async def in_command(database: Database, proxy: TcpProxy) -> None:
    proxy.swallow()
    await database.execute(ONE, {}, seconds=1.0)


@pytest.mark.parametrize("step", [in_transaction, in_statement, in_command])
def test_a_database_that_stops_responding_is_detected_and_connected_to_again(
    relay_url: str, step: Callable[[Database, TcpProxy], Awaitable[None]]
) -> None:
    with tcp_proxy(relay_url) as proxy:

        async def story(database: Database) -> None:
            await database.fetch(ONE, {})
            with pytest.raises(psycopg.OperationalError):
                await step(database, proxy)
            proxy.heal()
            await recovered(database)

        tell(proxy.url(relay_url), story)


def test_a_cancelled_statement_on_a_connection_that_does_not_respond_ends(relay_url: str) -> None:
    """A cancellation uses a new connection to the server, which does not respond either."""
    with tcp_proxy(relay_url) as proxy:

        async def story(database: Database) -> None:
            await database.fetch(ONE, {})
            proxy.swallow()
            asking = asyncio.create_task(database.fetch(ONE, {}, seconds=5.0))
            assert await asyncio.wait([asking], timeout=0.5) == (set(), {asking})
            asking.cancel()
            await asyncio.wait([asking], timeout=BOUND_SECONDS / 2)
            assert asking.done()
            proxy.heal()
            await recovered(database)

        tell(proxy.url(relay_url), story)


def test_a_statement_past_its_deadline_leaves_its_connection_unused(relay_url: str) -> None:
    async def story(database: Database) -> None:
        before = await database.fetch("SELECT pg_backend_pid() AS pid", {})
        with pytest.raises(psycopg.OperationalError):
            await database.fetch("SELECT pg_sleep(120)", {}, seconds=0.5)
        after = await database.fetch("SELECT pg_backend_pid() AS pid", {})
        assert before != after

    tell(relay_url, story, connections_max=1)


def test_connections_that_the_server_closed_are_not_used(
    relay_url: str, administrator: psycopg.Connection[Any]
) -> None:
    async def story(database: Database) -> None:
        async def hold(connection: AsyncConnection[Any]) -> int:
            await both.wait()
            return connection.info.backend_pid

        both = asyncio.Barrier(3)
        pids = await asyncio.gather(*(database.run(hold) for _ in range(3)))
        administrator.execute("SELECT pg_terminate_backend(pid, 10000) FROM unnest(%s::integer[]) AS v (pid)", (pids,))
        assert await asyncio.gather(*(database.fetch(ONE, {}) for _ in range(6))) == [[{"one": 1}]] * 6

    tell(relay_url, story, connections_max=3)


def test_the_server_ends_the_session_of_a_relay_that_disappeared(relay_url: str) -> None:
    async def story(database: Database) -> None:
        set_to = {row["name"]: int(row["setting"]) for row in await database.fetch(SETTINGS, {})}
        assert len(set_to) == 3
        assert all(0 < milliseconds <= 60_000 for milliseconds in set_to.values()), set_to

    tell(relay_url, story)


def test_a_connection_detects_a_peer_that_does_not_respond(relay_url: str) -> None:
    async def story(database: Database) -> None:
        async def options(connection: AsyncConnection[Any]) -> dict[str, str]:
            return connection.info.get_parameters()

        found = await database.run(options)
        assert int(found["connect_timeout"]) <= 10
        assert found["keepalives"] == "1"
        assert int(found["keepalives_idle"]) + int(found["keepalives_interval"]) * int(found["keepalives_count"]) <= 30
        assert int(found["tcp_user_timeout"]) <= 30_000

    tell(relay_url, story)


def test_the_connection_parameters_of_the_url_are_used(relay_url: str) -> None:
    async def story(database: Database) -> None:
        async def options(connection: AsyncConnection[Any]) -> dict[str, str]:
            return connection.info.get_parameters()

        assert (await database.run(options))["tcp_user_timeout"] == "7000"

    tell(f"{relay_url}?tcp_user_timeout=7000", story)
