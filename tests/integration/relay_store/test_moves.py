"""Concurrent transactions: rows that the janitor moves are found by statements that waited for them or skipped them,
and there is no deadlock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
import pytest

from services.relay.options import CallbackOptions
from tests.integration.relay_store.conftest import Run, Stores, draft
from tests.wait import until

T = TypeVar("T")
_WAITS = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class Mover:
    """The janitor while it moves rows out of the first period."""

    def __init__(self, url: str, administrator: psycopg.Connection[Any]) -> None:
        self._url = url
        self._administrator = administrator

    @contextmanager
    def _moving(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self._url) as connection:
            row = connection.execute("SELECT relay.move_waiting(1, 1000)").fetchone()
            assert row is not None
            assert row[0] > 0
            yield connection

    async def while_moving(self, *work: Awaitable[T]) -> list[T]:
        """Start `work` while rows are being moved, and finish the move when a statement of `work` waits for it."""
        with self._moving() as connection:
            tasks = [asyncio.ensure_future(one) for one in work]
            await asyncio.to_thread(until, lambda: self._administrator.execute(_WAITS).fetchall())
            connection.commit()
        return await asyncio.wait_for(asyncio.gather(*tasks), 30)


@pytest.fixture
def mover(relay_url: str, administrator: psycopg.Connection[Any]) -> Mover:
    return Mover(relay_url, administrator)


async def under_way(stores: Stores) -> None:
    """A call that keeps the period."""
    await stores.accept(draft())
    assert len(await stores.claim()) == 1


def test_a_message_that_is_cancelled_while_it_is_moved_is_cancelled(run: Run, mover: Mover) -> None:
    async def story(stores: Stores) -> None:
        await under_way(stores)
        ids = await stores.accept(draft(delay_seconds=3600.0), draft(delay_seconds=3600.0))
        [cancelled] = await mover.while_moving(stores.messages.cancel(ids))
        assert sorted(cancelled) == sorted(ids)
        assert sorted((await stores.states()).values()) == ["active", "cancelled", "cancelled"]
        assert await stores.messages.cancel(ids) == []

    run(story)


def test_a_queues_head_is_not_overtaken_while_it_is_moved(run: Run, mover: Mover) -> None:
    async def story(stores: Stores) -> None:
        first, head = await stores.accept(draft(queue="q"), draft(queue="q"))
        claimed = await stores.claim()
        assert [one.id for one in claimed] == [first]
        await stores.rows("SELECT relay.open_period()")
        await mover.while_moving(stores.accept(draft(queue="q")), stores.finish(claimed))
        assert [one.id for one in await stores.claim()] == [head]

    run(story)


def test_a_message_that_is_moved_while_its_queue_is_deleted_is_cancelled(run: Run, mover: Mover) -> None:
    async def story(stores: Stores) -> None:
        first, behind = await stores.accept(draft(queue="q"), draft(queue="q"))
        await stores.claim()
        assert await mover.while_moving(stores.queues.delete("q")) == [True]
        assert await stores.states() == {first: "active", behind: "cancelled"}

    run(story)


def test_a_message_that_is_moved_while_its_queue_is_paused_does_not_begin(run: Run, mover: Mover) -> None:
    async def story(stores: Stores) -> None:
        await under_way(stores)
        [first] = await stores.accept(draft(queue="q"))
        await mover.while_moving(stores.queues.pause("q"))
        assert await stores.claim() == []
        await stores.queues.resume("q")
        assert [one.id for one in await stores.claim()] == [first]

    run(story)


def test_a_place_is_freed_though_its_holder_is_moved(run: Run, mover: Mover) -> None:
    async def story(stores: Stores) -> None:
        back = CallbackOptions("https://example.com/back")
        first, behind = await stores.accept(draft(queue="q", callback=back), draft(queue="q", delay_seconds=0.0))
        await stores.finish(await stores.claim())
        [callback] = await stores.claim()
        assert callback.parent_id == first
        await mover.while_moving(stores.finish([callback]))
        assert [one.id for one in await stores.claim()] == [behind]

    run(story)


def test_a_retry_does_not_begin_in_a_queue_that_is_paused_while_it_is_written(
    run: Run, administrator: psycopg.Connection[Any]
) -> None:
    async def story(stores: Stores) -> None:
        [message_id] = await stores.accept(draft(queue="q", retry_delay="0"))
        claimed = await stores.claim()
        with administrator.transaction():
            # The transaction of the ending has updated the message, and not yet inserted its log.
            administrator.execute("LOCK TABLE relay.events IN SHARE ROW EXCLUSIVE MODE")
            finishing = asyncio.create_task(stores.finish(claimed, 503))
            await asyncio.to_thread(until, lambda: administrator.execute(_WAITS).fetchall())
            await asyncio.wait_for(stores.queues.pause("q"), 30)
        assert await finishing == 1
        assert await stores.claim() == []
        assert await stores.states() == {message_id: "queued"}
        await stores.queues.resume("q")
        assert [one.id for one in await stores.claim()] == [message_id]

    run(story)


def test_endings_and_cancellations_of_the_same_messages_do_not_deadlock(
    run: Run, administrator: psycopg.Connection[Any]
) -> None:
    async def story(stores: Stores) -> None:
        for n in range(12):
            await stores.accept(*(draft() for _ in range(250)))
            claimed = sorted(await stores.claim(250), key=lambda one: one.id, reverse=n % 2 == 0)
            ids = [one.id for one in claimed]
            ended, *cancelled = await asyncio.gather(
                stores.finish(claimed), stores.messages.cancel(ids), stores.messages.cancel(ids[::-1])
            )
            assert ended + sum(len(one) for one in cancelled) == 250

    run(story)
    # The statistics of a session are visible when it has ended.
    others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    until(lambda: administrator.execute(others).fetchall() == [])
    row = administrator.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row == (0,)
