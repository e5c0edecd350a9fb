"""Large bodies on a real database: no row contains one, and those that older versions stored in rows are claimed a few
at a time.
"""

from __future__ import annotations

import hashlib
from typing import Any

import psycopg
import pytest

from services.relay.memory.memory import PAGE_BYTES_MAX
from services.relay.message import INLINE_BYTES_MAX, Stored
from services.relay.options import FlowControl
from services.relay.protocol.address import Url
from services.relay.protocol.cursor import decode_cursor
from services.relay.protocol.filters import Filters
from services.relay.protocol.schedule import schedule_draft
from services.relay.schema import create_schema
from tests.infra.postgres import PostgresServer
from tests.integration.relay_store.conftest import Run, Stores, draft, later
from tests.integration.relay_store.test_dead_letters import fail

KEYED = FlowControl("k", None, None)


async def enlarge(stores: Stores, table: str, size: int) -> None:
    """Store a body of `size` in every row, as versions before 0008 did."""
    await stores.rows(
        f"UPDATE relay.{table} SET body = convert_to(repeat('x', %(size)s), 'UTF8'), body_size = %(size)s RETURNING id",
        size=size,
    )


async def pieces(stores: Stores, key: str | None) -> bytes:
    [row] = await stores.rows(
        "SELECT string_agg(content, '' ORDER BY part) AS content FROM relay.chunks WHERE key = %(key)s", key=key
    )
    content: bytes = row["content"]
    return content


def test_no_row_gets_a_large_body(run: Run) -> None:
    async def story(stores: Stores) -> None:
        with pytest.raises(ValueError, match="in pieces"):
            await stores.accept(draft(body=b"x" * (INLINE_BYTES_MAX + 1)))
        assert await stores.states() == {}
        await stores.accept(draft(body=b"x" * INLINE_BYTES_MAX))

    run(story)


@pytest.mark.parametrize("flow", [None, KEYED])
def test_a_claim_is_limited_by_the_bytes_of_free_memory(run: Run, flow: FlowControl | None) -> None:
    async def story(stores: Stores) -> None:
        ids = await stores.accept(*(draft(body=b"x" * 10_000, flow=flow) for _ in range(7)))
        await stores.processes.renew(60)
        claim = stores.messages.claim if flow is None else stores.messages.claim_keyed
        assert [one.id for one in await claim(100, 35_000)] == ids[:3]
        assert [one.id for one in await claim(100, 10)] == ids[3:4], "one at least"
        assert [one.id for one in await claim(2, 35_000)] == ids[4:6]
        assert [one.id for one in await claim(100, 35_000)] == ids[6:]

    run(story)


@pytest.mark.parametrize("flow", [None, KEYED])
def test_large_rows_of_older_versions_are_claimed_one_at_a_time(run: Run, flow: FlowControl | None) -> None:
    async def story(stores: Stores) -> None:
        ids = await stores.accept(*(draft(flow=flow) for _ in range(3)))
        await enlarge(stores, "messages", 5_000_000)
        await stores.accept(draft(body=Stored("pieces", 70_000_000, b"hash"), flow=flow))
        assert [[one.id for one in await stores.claim()] for _ in range(2)] == [[ids[0]], [ids[1]]]
        last = [*await stores.claim(), *await stores.claim()]
        assert [one.body_size for one in last] == [5_000_000, 70_000_000], "what is in pieces takes no room"

    run(story)


def test_a_page_of_dead_letters_is_limited_by_bytes(run: Run) -> None:
    async def story(stores: Stores) -> None:
        ids = await fail(stores, *(draft(body=b"x" * 10) for _ in range(5)))
        await stores.rows(
            "UPDATE relay.dead_letters SET response_body = convert_to(repeat('y', %(size)s), 'UTF8') RETURNING id",
            size=PAGE_BYTES_MAX // 2 - 10_000,
        )
        seen: list[list[str]] = []
        cursor: str | None = ""
        while cursor is not None:
            filters = Filters(cursor=decode_cursor(cursor) if cursor else None)
            page, cursor = await stores.dead_letters.list(filters)
            assert {len(letter.response_body) for letter in page} == {PAGE_BYTES_MAX // 2 - 10_000}
            seen.append([letter.id for letter in page])
        assert seen == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]
        [trimmed] = (await stores.dead_letters.list(Filters(count=1, trim_body=3)))[0]
        assert trimmed.response_body == b"yyy"

    run(story)


def test_a_page_of_events_is_limited_by_bytes(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(*(draft() for _ in range(7)))
        header = "jsonb_build_object('X', jsonb_build_array(repeat('y', %(size)s)))"
        await stores.rows(
            f"UPDATE relay.events SET response_header = {header} RETURNING sequence", size=PAGE_BYTES_MAX // 3
        )
        for earliest_first in (False, True):
            pages: list[int] = []
            seen: set[str] = set()
            cursor: str | None = ""
            while cursor is not None:
                filters = Filters(earliest_first=earliest_first, cursor=decode_cursor(cursor) if cursor else None)
                page, cursor = await stores.events.list(filters)
                pages.append(len(page))
                seen |= {event.message_id for event in page}
            assert (pages, len(seen)) == ([3, 3, 1], 7)
        assert (await stores.events.list(Filters(count=7)))[1] is not None

    run(story)


def test_large_bodies_in_dead_letters_of_older_versions_are_not_shown_and_become_chunks_at_their_retry(
    run: Run,
) -> None:
    async def story(stores: Stores) -> None:
        one, other = await fail(stores, draft(), draft())
        await enlarge(stores, "dead_letters", 2_000_001)
        letter = await stores.dead_letters.get(one)
        assert letter is not None
        assert letter.message.body == b""
        assert await stores.dead_letters.retry(one, {}) is not None
        await stores.dead_letters.retry_many(Filters(dlq_ids=(other,)))
        for claimed in await stores.claim():
            assert claimed.stored is not None
            body = await pieces(stores, claimed.body_key)
            assert body == b"x" * 2_000_001
            assert (claimed.body, claimed.stored.sha256) == (b"", hashlib.sha256(body).digest())

    run(story)


def test_dead_letters_with_different_stored_bodies_are_both_retried_under_content_based_deduplication(run: Run) -> None:
    async def story(stores: Stores) -> None:
        bodies = [Stored(f"body_{n}", 100_000, bytes([n]) * 32) for n in range(2)]
        dead_letters = await fail(stores, *(draft(body=body) for body in bodies))
        for letter in dead_letters:
            await stores.dead_letters.retry(letter, {"Upstash-Content-Based-Deduplication": "true"})
        assert {one.body_key for one in await stores.claim()} == {"body_0", "body_1"}

    run(story)


def test_the_retry_of_many_is_limited_by_the_bytes_of_their_bodies(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await fail(stores, *(draft(body=b"x" * INLINE_BYTES_MAX) for _ in range(3)))
        ids, cursor = await stores.dead_letters.retry_many(Filters(all=True))
        assert (len(ids), cursor) == (3, None)

    run(story)


def test_a_long_list_of_schedules_shows_the_bodies_of_the_first(run: Run) -> None:
    async def story(stores: Stores) -> None:
        fitting = PAGE_BYTES_MAX // INLINE_BYTES_MAX
        for n in range(fitting + 2):
            drafted = schedule_draft(
                Url("https://example.com"), {"upstash-cron": "* * * * *"}, b"x" * INLINE_BYTES_MAX, new_id=f"s{n}"
            )
            await stores.schedules.upsert(drafted, later())
        shown = [len(schedule.body) for schedule in await stores.schedules.all()]
        assert shown == [INLINE_BYTES_MAX] * fitting + [0, 0]
        [last] = [one for one in await stores.schedules.all() if one.id == f"s{fitting}"]
        assert last.body == b""
        alone = await stores.schedules.get(f"s{fitting}")
        assert alone is not None
        assert len(alone.body) == INLINE_BYTES_MAX

    run(story)


def test_large_bodies_of_schedules_of_older_versions_become_chunks(postgres: PostgresServer) -> None:
    with postgres.database(template="template1") as name:
        url = postgres.url(name)
        create_schema(url)
        with psycopg.connect(url, autocommit=True) as connection:
            undo(connection)
            connection.execute(
                "INSERT INTO relay.schedules (id, cron, destination, sealed, body, protocol, caller_ip, next_at)"
                " VALUES ('old', '* * * * *', 'https://example.com', '', convert_to(repeat('x', 2000000), 'UTF8'), 2, '', now())"
            )
            create_schema(url)
            row = connection.execute(
                "SELECT length(body), body_size, body_sha256, body_key FROM relay.schedules"
            ).fetchone()
            assert row is not None
            assert row[:3] == (0, 2_000_000, hashlib.sha256(b"x" * 2_000_000).digest())
            found = connection.execute(
                "SELECT sum(length(content)) FROM relay.chunks WHERE key = %s", (row[3],)
            ).fetchone()
            assert found == (2_000_000,)


def undo(connection: psycopg.Connection[Any]) -> None:
    """Undo the changes of 0008."""
    connection.execute("DROP FUNCTION relay.store_pieces, relay.claim_keyed(uuid, integer, integer, bigint)")
    connection.execute("DELETE FROM relay.schema_files WHERE name LIKE '0008%'")
