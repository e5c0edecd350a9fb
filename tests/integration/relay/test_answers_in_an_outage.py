"""An answer is being stored when the database goes down: it is stored when the database is up again."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, LiteralString

import psycopg
import pytest

from services.relay.schema import create_schema
from services.relay.store.chunks import PIECE_BYTES, WRITE_TRIES, Chunks
from services.relay.store.database import Database, Row, new_pool
from tests.destination import Received, Reply, destination
from tests.infra.postgres import PostgresServer
from tests.integration.relay.conftest import Relay
from tests.integration.relay.edges import Edge, calls, edge
from tests.wait import until

ANSWER = bytes(range(256)) * 4 * 1024 * 6
TIMEOUT_SECONDS = 15
OUTAGE_SECONDS = 25


@pytest.fixture
def faulty(postgres: PostgresServer) -> Iterator[Edge]:
    with edge(postgres) as made:
        yield made


class Counted(Database):
    """Counts the attempted statements."""

    tries = 0

    async def fetch(
        self, statement: LiteralString, parameters: Mapping[str, Any], *, seconds: float = 1.0
    ) -> list[Row]:
        self.tries += 1
        return await super().fetch(statement, parameters, seconds=seconds)

    async def execute(self, statement: LiteralString, parameters: Mapping[str, Any], *, seconds: float = 1.0) -> int:
        self.tries += 1
        return await super().execute(statement, parameters, seconds=seconds)


def answering(received: Received) -> Reply:
    return Reply(body=ANSWER if received.path == "/model" else b"")


# Of eight answers of one origin, five have a place, and three wait for one.
@pytest.mark.parametrize("count", [1, 8])
def test_an_answer_is_stored_after_an_outage_that_is_longer_than_its_timeout(
    new_relay: Callable[..., Relay], faulty: Edge, count: int
) -> None:
    relay = new_relay(**faulty.settings, RELAY_LEASE_SECONDS="4")
    with destination(answering) as server:
        faulty.proxy.delay(0.05)
        for _ in range(count):
            relay.publish(
                f"{server.url}/model", Upstash_Callback=f"{server.url}/callback", Upstash_Timeout=f"{TIMEOUT_SECONDS}s"
            )
        until(lambda: faulty.rows("SELECT count(DISTINCT key) FROM relay.chunks") == [(count,)], 60)
        until(lambda: faulty.rows("SELECT count(*) FROM relay.chunks")[0][0] >= 2, 60)
        faulty.proxy.refuse()
        server.released.wait(OUTAGE_SECONDS)
        faulty.proxy.heal()
        until(lambda: len(server.to("/callback")) == count, 120)
    assert calls(server) == {"/model": count, "/callback": count}
    assert all(base64.b64encode(ANSWER) in called_back.body for called_back in server.to("/callback"))


def in_an_outage(faulty: Edge, story: Callable[[Chunks, Counted], Awaitable[None]]) -> None:
    create_schema(faulty.url)

    async def run() -> None:
        pool = new_pool(faulty.proxy.url(faulty.url), connections_max=1, timeout_seconds=0.2)
        database = Counted(pool)
        async with pool, asyncio.timeout(60):
            await story(Chunks(database, pause_seconds=0.01), database)

    asyncio.run(run())


async def tried(database: Counted, work: asyncio.Future[Any]) -> None:
    """More attempts than for the body of a request."""
    until_tries = database.tries + 2 * WRITE_TRIES
    while database.tries < until_tries:
        await asyncio.sleep(0.05)
        assert not work.done()


def test_chunks_of_an_answer_are_written_when_the_database_is_up_again(faulty: Edge) -> None:
    async def story(chunks: Chunks, database: Counted) -> None:
        async with asyncio.timeout(50) as limit:
            writer = chunks.writer(limit)
            await writer.write(b"a" * PIECE_BYTES)
            faulty.proxy.refuse()
            writing = asyncio.ensure_future(writer.write(b"b" * PIECE_BYTES))
            await tried(database, writing)
            faulty.proxy.heal()
            await writing
            await writer.close()
        content = b"".join([piece async for piece in chunks.read(writer.key, 2 * PIECE_BYTES)])
        assert content == b"a" * PIECE_BYTES + b"b" * PIECE_BYTES

    in_an_outage(faulty, story)


def test_the_body_of_a_request_is_given_up_while_its_client_waits(faulty: Edge) -> None:
    async def story(chunks: Chunks, _: Counted) -> None:
        faulty.proxy.refuse()
        with pytest.raises(psycopg.OperationalError):
            await chunks.writer().write(b"a" * PIECE_BYTES)

    in_an_outage(faulty, story)


def test_chunks_that_are_forwarded_are_read_when_the_database_is_up_again(faulty: Edge) -> None:
    async def story(chunks: Chunks, database: Counted) -> None:
        writer = chunks.writer()
        await writer.write(b"a" * 2 * PIECE_BYTES)
        pieces = chunks.read(writer.key, 2 * PIECE_BYTES)
        await anext(pieces)
        faulty.proxy.refuse()
        reading = asyncio.ensure_future(anext(pieces))
        await tried(database, reading)
        faulty.proxy.heal()
        assert await reading == b"a" * PIECE_BYTES
        faulty.proxy.refuse()
        with pytest.raises(psycopg.OperationalError):
            await anext(chunks.read(writer.key, PIECE_BYTES, tries_max=1))

    in_an_outage(faulty, story)
