"""Flow-control keys on a real database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from services.relay.ending import ending_of
from services.relay.message import Claimed
from services.relay.options import FlowControl
from services.relay.outcome.outcome import Answer, Fate
from services.relay.protocol.flow import Pin, Unpin
from tests.integration.relay_store.conftest import Run, Stores, draft
from tests.wait import until


def test_counts_are_those_of_the_messages(run: Run) -> None:
    async def story(stores: Stores) -> None:
        assert await stores.flow_keys.get("k") is None
        await stores.accept(*(draft(flow=FlowControl("k", 2, 10, 60)) for _ in range(5)))
        claimed = await stores.claim()
        view = await stores.flow_keys.get("k")
        assert view is not None
        assert (view.waiting, view.parallelism_count, view.parallelism_max) == (3, 2, 2)
        assert (view.rate_count, view.rate_max, view.period_seconds) == (2, 10, 60)
        assert view.period_start is not None
        assert await stores.flow_keys.all_calls() == (2, 1)
        await stores.finish(claimed)
        after = await stores.flow_keys.get("k")
        assert after is not None
        assert (after.waiting, after.parallelism_count) == (3, 0)

    run(story)


def test_a_rate_window_begins_with_a_call_and_not_with_a_claim_that_finds_none(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(draft(flow=FlowControl("k", None, 1, 3600)))
        await stores.finish(await stores.claim())
        await stores.flow_keys.reset_rate("k")
        assert await stores.claim() == []
        view = await stores.flow_keys.get("k")
        assert view is not None
        assert (view.rate_count, view.period_start) == (0, None)

    run(story)


async def end(stores: Stores, claimed: list[Claimed], fate: Fate) -> None:
    answer = Answer(0, (), b"", error="no answer", fate=fate)
    await stores.messages.finish([ending_of(one, answer, datetime.now(UTC)) for one in claimed])


async def rate_count(stores: Stores) -> int:
    view = await stores.flow_keys.get("k")
    assert view is not None
    return view.rate_count


def test_a_message_that_is_put_off_returns_its_part_of_the_rate(run: Run) -> None:
    async def story(stores: Stores) -> None:
        ids = await stores.accept(*(draft(flow=FlowControl("k", None, 2, 3600)) for _ in range(4)))
        put_off, failed = await stores.claim()
        assert await stores.claim() == []
        await end(stores, [put_off], "not attempted")
        assert await rate_count(stores) == 1
        assert [one.id for one in await stores.claim()] == [ids[2]]
        # A connection that was refused was an attempt.
        await end(stores, [failed], "not sent")
        assert (await rate_count(stores), await stores.claim()) == (2, [])

    run(story)


def test_a_message_that_was_never_sent_returns_its_part_of_the_rate(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(*(draft(flow=FlowControl("k", None, 2, 3600)) for _ in range(3)))
        returned, sent = await stores.claim()
        assert await stores.claims.give_back([returned.claim]) == 1
        assert len(await stores.claim()) == 1
        await stores.claims.disown([sent.claim])
        assert await stores.expire() == 1
        assert (await rate_count(stores), await stores.claim()) == (2, [])

    run(story)


def test_nothing_is_returned_to_a_window_that_has_ended(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(*(draft(flow=FlowControl("k", None, 2, 3600)) for _ in range(4)))
        put_off, _ = await stores.claim()
        # As if the window had ended.
        await stores.rows("UPDATE relay.flow_keys SET window_started_at = '-infinity', ready_at = now() RETURNING 1")
        assert len(await stores.claim()) == 2
        await end(stores, [put_off], "not attempted")
        assert await rate_count(stores) == 2

    run(story)


def test_keys_are_found_by_a_part_of_their_names(run: Run) -> None:
    async def story(stores: Stores) -> None:
        for key in ("user-b", "user-a", "host_1"):
            await stores.accept(draft(flow=FlowControl(key, 1, None)))
        assert [one.key for one in await stores.flow_keys.search("user")] == ["user-a", "user-b"]
        assert [one.key for one in await stores.flow_keys.search("t_1")] == ["host_1"]
        assert len(await stores.flow_keys.search()) == 3

    run(story)


def test_no_call_begins_under_a_paused_key(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.flow_keys.pause("k")
        [message_id] = await stores.accept(draft(flow=FlowControl("k", 1, None)))
        assert await stores.claim() == []
        await stores.flow_keys.resume("k")
        assert [one.id for one in await stores.claim()] == [message_id]

    run(story)


def test_a_pinned_limit_is_not_changed_by_messages_until_it_is_unpinned(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.flow_keys.pin("k", Pin(3, 7, 60))
        await stores.accept(draft(flow=FlowControl("k", 1, 1, 1)))
        view = await stores.flow_keys.get("k")
        assert view is not None
        assert (view.parallelism_max, view.rate_max, view.period_seconds) == (3, 7, 60)
        assert (view.pinned_parallelism, view.pinned_rate) == (True, True)
        await stores.flow_keys.unpin("k", Unpin(parallelism=True, rate=False))
        unpinned = await stores.flow_keys.get("k")
        assert unpinned is not None
        assert (unpinned.parallelism_max, unpinned.rate_max, unpinned.pinned_parallelism) == (3, 7, False)
        await stores.accept(draft(flow=FlowControl("k", 1, 1, 1)))
        after = await stores.flow_keys.get("k")
        assert after is not None
        assert (after.parallelism_max, after.rate_max, after.pinned_parallelism) == (1, 7, False)

    run(story)


def test_resetting_the_rate_begins_a_new_window(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(*(draft(flow=FlowControl("k", None, 1, 3600)) for _ in range(2)))
        assert len(await stores.claim()) == 1
        assert await stores.claim() == []
        await stores.flow_keys.reset_rate("k")
        assert len(await stores.claim()) == 1

    run(story)


def test_an_operators_choice_of_cooling_is_not_changed_by_messages_until_it_is_unpinned(run: Run) -> None:
    async def story(stores: Stores) -> None:
        async def chosen() -> tuple[bool, bool]:
            await stores.accept(draft(flow=FlowControl("k", 1, None, cooling=True)))
            view = await stores.flow_keys.get("k")
            assert view is not None
            return view.cooling, view.pinned_cooling

        await stores.flow_keys.set_cooling("k", enabled=False)
        assert await chosen() == (False, True)
        await stores.flow_keys.unpin("k", Unpin(parallelism=True, rate=True))
        assert await chosen() == (False, True)
        await stores.flow_keys.unpin("k", Unpin(parallelism=False, rate=False, cooling=True))
        assert await chosen() == (True, False)

    run(story)


def test_turning_cooling_off_ends_a_pause(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(*(draft(flow=FlowControl("k", 5, None), retries_max=0) for _ in range(2)))
        await stores.rows("UPDATE relay.flow_keys SET cooling_until = now() + interval '1 hour' RETURNING key")
        assert (await stores.messages.depth())["cooling"] == 1
        assert await stores.claim() == []
        await stores.flow_keys.set_cooling("k", enabled=False)
        assert (await stores.messages.depth())["cooling"] == 0
        assert len(await stores.claim()) == 2
        view = await stores.flow_keys.get("k")
        assert view is not None
        assert not view.cooling

    run(story)


def test_a_publisher_that_has_not_committed_does_not_block_claims_of_its_key(run: Run) -> None:
    async def story(stores: Stores) -> None:
        keyed = draft(flow=FlowControl("k", 10, None))
        [before] = await stores.accept(keyed)

        async def publish(connection: AsyncConnection[Any]) -> str:
            [accepted] = await stores.messages.accept_in(connection, [keyed], 600)
            assert [one.id for one in await stores.claim()] == [before]
            assert await stores.claim() == [], "nobody sees the other yet"
            return accepted.message_id

        unseen = await stores.database.run(publish)
        # Nothing signals the message any more, and the janitor does not run.
        assert [one.id for one in await eventually_claimed(stores, 1)] == [unseen]

    run(story)


def test_publishers_that_alternate_a_keys_limits_do_not_block_claims_of_it(run: Run) -> None:
    """Every claim of a key with due messages and free places gets one, however busy the machine is."""
    claims = 200

    async def story(stores: Stores) -> None:
        await stores.processes.renew(600)
        await stores.accept(*(draft(flow=FlowControl("k", 5000, None)) for _ in range(claims)))
        publishing, published = True, 0

        async def publish() -> None:
            nonlocal published
            while publishing:
                for parallelism in (5000, 6000):
                    await stores.accept(draft(flow=FlowControl("k", parallelism, None)))
                    published += 1

        publishers = [asyncio.create_task(publish()) for _ in range(2)]
        while not published:  # noqa: ASYNC110  both publish by then
            await asyncio.sleep(0.01)
        reached = sum([len(await stores.messages.claim_keyed(1)) for _ in range(claims)])
        publishing = False
        await asyncio.gather(*publishers)
        assert reached / claims == 1.0, f"{published} published meanwhile"

    run(story)


def test_a_publisher_that_has_not_committed_other_limits_does_not_block_claims_of_its_key(run: Run) -> None:
    async def story(stores: Stores) -> None:
        [before] = await stores.accept(draft(flow=FlowControl("k", 10, None)))

        async def publish(connection: AsyncConnection[Any]) -> None:
            await stores.messages.accept_in(connection, [draft(flow=FlowControl("k", 11, None))], 600)
            assert [one.id for one in await stores.claim()] == [before]
            view = await stores.flow_keys.get("k")
            assert view is not None
            assert view.parallelism_max == 10, "what is not committed is not in force"

        await stores.database.run(publish)
        view = await stores.flow_keys.get("k")
        assert view is not None
        assert view.parallelism_max == 11

    run(story)


@pytest.mark.parametrize("limits", [(1, None), (None, 1)], ids=["parallelism", "rate"])
def test_limits_that_are_raised_while_a_claim_finds_them_reached_apply_soon(
    run: Run, limits: tuple[int | None, int | None]
) -> None:
    async def story(stores: Stores) -> None:
        parallelism, rate = limits
        await stores.accept(*(draft(flow=FlowControl("k", parallelism, rate, 3600)) for _ in range(2)))
        more = FlowControl("k", parallelism and 3, rate and 3, 3600)

        async def publish(connection: AsyncConnection[Any]) -> None:
            await stores.messages.accept_in(connection, [draft(flow=more)], 600)
            assert len(await stores.claim()) == 1

        await stores.database.run(publish)
        # No call and no window ends, and the janitor does not run.
        assert len(await eventually_claimed(stores, 2)) == 2

    run(story)


def test_a_key_without_limits_of_its_own_row_has_those_of_an_earlier_version(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(*(draft(flow=FlowControl("k", 1, None)) for _ in range(2)))
        await stores.rows("DELETE FROM relay.flow_limits RETURNING key")
        view = await stores.flow_keys.get("k")
        assert view is not None
        assert view.parallelism_max == 1
        assert len(await stores.claim()) == 1
        assert await stores.claim() == []

    run(story)


def test_no_message_is_forgotten_under_a_key_with_many_concurrent_publishes_and_claims(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.processes.renew(600)
        published = 0

        async def publish() -> None:
            nonlocal published
            for n in range(25):
                # Sometimes the limits change, which updates the key's row.
                await stores.accept(*(draft(flow=FlowControl("k", 3 + n // 10, None)) for _ in range(2)))
                published += 2

        async def deliver() -> None:
            while publishing or sum(counts) < published:
                claimed = await stores.messages.claim_keyed(10)
                await stores.finish(claimed)
                counts.append(len(claimed))

        counts: list[int] = []
        publishers = [asyncio.create_task(publish()) for _ in range(4)]
        publishing = True
        delivering = [asyncio.create_task(deliver()) for _ in range(2)]
        await asyncio.gather(*publishers)
        publishing = False
        await asyncio.wait_for(asyncio.gather(*delivering), 60)
        assert sum(counts) == published == 200
        assert set((await stores.states()).values()) == {"delivered"}

    run(story)


async def eventually_claimed(stores: Stores, count: int) -> list[Claimed]:
    claimed: list[Claimed] = []
    async with asyncio.timeout(30):
        while len(claimed) < count:
            claimed += await stores.claim()
    return claimed


def test_of_two_concurrent_publishes_with_an_expired_deduplication_id_one_gets_the_id_of_the_other(
    run: Run, administrator: psycopg.Connection[Any]
) -> None:
    async def story(stores: Stores) -> None:
        one = draft(deduplication_id="once")
        await stores.rows(
            "INSERT INTO relay.deduplications VALUES ('once', 'msg_expired', now() - interval '1 s') RETURNING id"
        )

        async def take(connection: AsyncConnection[Any]) -> tuple[str, asyncio.Task[list[str]]]:
            [winner] = await stores.messages.accept_in(connection, [one], 600)
            losing = asyncio.create_task(stores.accept(one))
            waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            await asyncio.to_thread(until, lambda: administrator.execute(waits).fetchall())
            return winner.message_id, losing

        winner, losing = await stores.database.run(take)
        assert await losing == [winner]
        assert set(await stores.states()) == {winner}

    run(story)
