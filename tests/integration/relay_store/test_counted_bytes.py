"""Reading and writing of rows is limited by the bytes of headers and options too, as by those of bodies."""

from __future__ import annotations

import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest

from services.relay.message import Draft
from services.relay.options import FlowControl
from services.relay.protocol.cursor import decode_cursor
from services.relay.protocol.filters import Filters
from services.relay.store.dead_letters import RETRY_BYTES_MAX
from services.relay.store.messages import CLAIM_BYTES_MAX, Messages
from services.relay.store.processes import Processes
from services.relay.store.record import STATEMENT_BYTES_MAX
from tests.integration.relay_store.conftest import Run, Stores, draft

MIB = 1024 * 1024
DEAD = UUID(int=2)
# Encrypted, they have about 64 KiB.
HEADERS = {"X-Large": "x" * 48_000}


def large(n: int, **changes: object) -> Draft:
    """Messages with different headers, as equal headers are sealed once."""
    return draft(headers=HEADERS | {"X-N": str(n)}, **changes)


async def most_bytes(work: Callable[[], Awaitable[object]]) -> int:
    """The maximum of additional memory while `work` runs."""
    tracemalloc.start()
    try:
        await work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("flow", [None, FlowControl("k", None, None)], ids=["claim", "claim_keyed"])
def test_a_claim_takes_no_more_than_its_bytes_with_the_headers(run: Run, flow: FlowControl | None) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(*(large(n, flow=flow) for n in range(6)))
        await stores.processes.renew(60)
        claim = stores.messages.claim if flow is None else stores.messages.claim_keyed
        assert [len(await claim(100, 3 * 66_000)) for _ in range(2)] == [3, 3]

    run(story)


def test_one_message_is_claimed_however_large_its_headers_are(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(large(1), large(2))
        await stores.processes.renew(60)
        assert len(await stores.messages.claim(100, 1000)) == 1

    run(story)


def test_claims_of_dead_processes_are_recovered_within_the_bytes_of_a_claim(run: Run) -> None:
    async def story(stores: Stores) -> None:
        count = CLAIM_BYTES_MAX // 100_000
        await stores.accept(*(large(n, body=b"x" * 60_000, on_unknown="fail") for n in range(count)))
        dead = Processes(stores.database, owner=DEAD)
        await dead.renew(60)
        claimed = 0
        while claimed < count:
            claimed += len(await Messages(stores.database, stores.encryption, owner=DEAD).claim(100))
        await dead.release()
        await stores.processes.renew(60)
        taken = [len(await stores.claims.take_over(250)) for _ in range(3)]
        assert sum(taken) == count
        assert 0 < taken[0] < count

    run(story)


async def dead_letters(stores: Stores, count: int) -> None:
    """The headers of all messages, read in few statements, as there are many."""
    await stores.accept(*(draft() for _ in range(count)))
    await stores.finish(await stores.claim(count), 404, final=True)
    [sealed] = await stores.rows("SELECT sealed FROM relay.dead_letters LIMIT 1")
    await stores.accept(large(0, delay_seconds=3600.0))
    await stores.rows(
        "UPDATE relay.dead_letters SET sealed = (SELECT sealed FROM relay.messages WHERE state = 'waiting') RETURNING 1"
    )
    assert len(sealed["sealed"]) < 1000


def test_dead_letters_are_removed_without_reading_their_headers(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await dead_letters(stores, 200)
        assert await most_bytes(lambda: stores.dead_letters.delete_many(Filters())) < 2 * MIB
        assert await stores.rows("SELECT FROM relay.dead_letters") == []

    run(story)


def test_dead_letters_are_retried_within_the_bytes_of_their_headers(run: Run) -> None:
    async def story(stores: Stores) -> None:
        count = RETRY_BYTES_MAX // 40_000
        await dead_letters(stores, count)
        ids, text = await stores.dead_letters.retry_many(Filters())
        assert RETRY_BYTES_MAX // 80_000 < len(ids) <= RETRY_BYTES_MAX // 60_000
        assert text is not None
        more, end = await stores.dead_letters.retry_many(Filters(cursor=decode_cursor(text)))
        assert (len(ids) + len(more), end) == (count, None)

    run(story)


def test_messages_with_large_headers_are_written_in_parts(run: Run, administrator: psycopg.Connection[Any]) -> None:
    administrator.execute("""
        CREATE TABLE relay.written (bytes bigint);
        CREATE FUNCTION relay.note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO relay.written SELECT sum(octet_length(sealed)) FROM fresh; RETURN NULL; END $$;
        CREATE TRIGGER note AFTER INSERT ON relay.messages REFERENCING NEW TABLE AS fresh
          FOR EACH STATEMENT EXECUTE FUNCTION relay.note();
    """)

    async def story(stores: Stores) -> None:
        await stores.accept(*(large(n) for n in range(100)))
        found = await stores.rows("SELECT count(*)::int, max(bytes), sum(bytes)::int AS bytes FROM relay.written")
        [statements] = found
        assert statements["bytes"] > 2 * STATEMENT_BYTES_MAX
        assert statements["max"] <= STATEMENT_BYTES_MAX

    run(story)
