"""What the janitor drops and repairs, on a real database."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from services.relay.engine.janitor import PERIODS_MAX, Janitor
from services.relay.message import Stored
from services.relay.options import FlowControl
from services.relay.protocol.flow import Pin
from services.relay.store.database import Database, queries
from tests.integration.relay_store.conftest import Run, Stores, draft, later, settings
from tests.wait import until


async def age(stores: Stores) -> None:
    """Let the periods be an hour older."""
    await stores.rows("UPDATE relay.periods SET opened_at = opened_at - interval '1 hour' RETURNING period")


async def periods(stores: Stores) -> list[int]:
    return [row["period"] for row in await stores.rows("SELECT period FROM relay.periods ORDER BY period")]


async def partitions(stores: Stores) -> set[str]:
    found = await stores.rows("SELECT inhrelid::regclass::text AS name FROM pg_inherits "
                              "WHERE inhparent = 'relay.messages'::regclass")  # fmt: skip
    return {row["name"] for row in found}


def test_a_period_is_dropped_when_all_its_messages_have_ended(run: Run) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings())
        await stores.accept(draft(), draft())
        await stores.finish(await stores.claim())
        await janitor.run_once()
        assert await periods(stores) == [1]
        await age(stores)
        await janitor.run_once()
        assert await periods(stores) == [2]
        assert await partitions(stores) == {"relay.messages_long", "relay.messages_p2"}
        assert await stores.states() == {}
        await age(stores)
        await janitor.run_once()
        assert await periods(stores) == [2], "nothing came in it, so it goes on"

    run(story)


def test_a_waiting_message_is_moved_out_of_its_period_and_delivered(run: Run) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings())
        delayed, active, queued, behind = await stores.accept(
            draft(delay_seconds=3600.0), draft(), draft(queue="q"), draft(queue="q")
        )
        claimed = await stores.claim()
        await age(stores)
        await janitor.run_once()
        assert await periods(stores) == [1, 2], "calls in progress keep it"
        await stores.finish(claimed)
        await janitor.run_once()
        assert await periods(stores) == [2]
        assert await stores.states() == {delayed: "waiting", behind: "waiting"}
        assert [one.id for one in await stores.claim()] == [behind]
        assert {active, queued} == {one.id for one in claimed}

    run(story)


def test_ended_messages_are_kept_for_their_time(run: Run) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings(keep_seconds=60.0))
        [message_id] = await stores.accept(draft())
        await stores.finish(await stores.claim())
        await age(stores)
        await janitor.run_once()
        await age(stores)
        await janitor.run_once()
        assert await stores.states() == {message_id: "delivered"}
        # The time counts from when the janitor first found that all had ended.
        await stores.rows("UPDATE relay.periods SET quiet_at = quiet_at - interval '61 seconds' RETURNING period")
        await janitor.run_once()
        assert await stores.states() == {}

    run(story)


def test_a_period_closes_under_load_and_nothing_is_lost(run: Run) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings(period_seconds=1.0))
        accepted: list[str] = []
        ended: list[str] = []
        stop = asyncio.Event()
        await stores.processes.renew(600)

        async def publish() -> None:
            while not stop.is_set():
                accepted.extend(await stores.accept(*(draft(retry_delay="0") for _ in range(20))))

        async def deliver() -> None:
            while not stop.is_set() or len(ended) < len(accepted):
                claimed = await stores.messages.claim(50)
                await stores.finish(claimed)
                ended.extend(one.id for one in claimed)

        work = [asyncio.create_task(task()) for task in (publish, publish, deliver, deliver)]
        dropped = 0
        async with asyncio.timeout(60):
            while dropped < 4:
                await age(stores)
                before = set(await periods(stores))
                await janitor.run_once()
                dropped += len(before - set(await periods(stores)))
        stop.set()
        await asyncio.wait_for(asyncio.gather(*work), 60)
        assert len(ended) == len(set(ended))
        assert set(ended) == set(accepted)

    run(story)


def test_tables_stay_small_while_a_transaction_blocks_vacuum(
    run: Run, relay_url: str, administrator: psycopg.Connection[Any]
) -> None:
    def size() -> int:
        row = administrator.execute(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
            "WHERE relnamespace = 'relay'::regnamespace AND relkind = 'r' AND relname LIKE 'messages%'"
        ).fetchone()
        assert row is not None
        return int(row[0])

    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings())
        sizes = []
        for _ in range(6):
            for _ in range(4):
                await stores.accept(*(draft(body=b"x" * 1000) for _ in range(250)))
                while claimed := await stores.claim(250):
                    await stores.finish(claimed)
            sizes.append(size())
            await age(stores)
            await janitor.run_once()
        assert await stores.states() == {}
        assert await periods(stores) == [7]
        assert max(sizes) < 1.5 * sizes[0], sizes
        assert size() < sizes[0] / 4

    with psycopg.connect(relay_url) as holding:
        holding.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holding.execute("SELECT count(*) FROM pg_class")
        holding.execute("SELECT pg_current_xact_id()")
        run(story)
        row = administrator.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL").fetchone()
        assert row is not None
        assert row[0] > 0


def test_old_messages_are_deleted_after_their_end_with_their_chunks(run: Run) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings())
        one, other = Stored("a", 10, b"hash"), Stored("b", 10, b"hash")
        gone, buried = await stores.accept(
            draft(body=one, delay_seconds=3600.0), draft(body=other, delay_seconds=3600.0, retries_max=0)
        )
        for key in ("a", "b"):
            await stores.rows(
                "INSERT INTO relay.chunks VALUES (%(key)s, 0, 'x'), (%(key)s, 1, 'y') RETURNING key", key=key
            )
        await age(stores)
        await janitor.run_once()
        assert await stores.rows("SELECT DISTINCT period FROM relay.messages") == [{"period": 0}]
        await stores.rows("UPDATE relay.messages SET due_at = now() RETURNING id")
        claimed = {one.id: one for one in await stores.claim()}
        await stores.finish([claimed[gone]])
        await stores.finish([claimed[buried]], 500)
        await janitor.run_once()
        assert await stores.states() == {}
        left = await stores.rows("SELECT key FROM relay.chunks ORDER BY part")
        assert [row["key"] for row in left] == ["b", "b"], "the dead letter needs its own"

    run(story)


def test_chunks_without_a_reference_are_deleted_after_some_time(run: Run) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings())
        await stores.accept(draft(body=Stored("used", 1, b"hash")))
        for key, age_minutes in (("used", 14 * 60), ("orphan", 14 * 60), ("young", 12 * 60)):
            await stores.rows(
                "INSERT INTO relay.chunks VALUES (%(key)s, 0, 'x', now() - make_interval(mins => %(age)s)) RETURNING key",
                key=key, age=age_minutes,
            )  # fmt: skip
        await janitor.run_once()
        left = await stores.rows("SELECT key FROM relay.chunks ORDER BY key")
        assert [row["key"] for row in left] == ["used", "young"]

    run(story)


def test_old_rows_and_days_are_dropped_and_new_days_created(run: Run) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings())
        await stores.rows("INSERT INTO relay.deduplications VALUES ('old', 'm', now() - interval '1 s'), "
                          "('new', 'm', now() + interval '1 hour') RETURNING id")  # fmt: skip
        await stores.rows("INSERT INTO relay.cancellations VALUES (gen_random_uuid(), 'old', now() - interval '2 hours'), "
                          "(gen_random_uuid(), 'new', now()) RETURNING owner")  # fmt: skip
        await stores.rows(
            "INSERT INTO relay.processes VALUES (gen_random_uuid(), now() - interval '2 days') RETURNING owner"
        )
        await stores.rows("INSERT INTO relay.put_offs (message_id, error, put_off_at) VALUES "
                          "('old', '', now() - interval '2 days'), ('new', '', now()) RETURNING count")  # fmt: skip
        for parent, low, high in (
            ("events", "'2020-01-01+00'", "'2020-01-02+00'"),
            ("dead_letters", "'1577836800000'", "'1577923200000'"),
        ):
            await stores.database.execute(
                f"CREATE TABLE relay.{parent}_20200101 PARTITION OF relay.{parent} FOR VALUES FROM ({low}) TO ({high})",
                {},
            )
        await stores.database.execute("DROP TABLE relay.events_" + _tomorrow(), {})
        await janitor.run_once()
        assert [row["id"] for row in await stores.rows("SELECT id FROM relay.deduplications")] == ["new"]
        assert [row["message_id"] for row in await stores.rows("SELECT message_id FROM relay.cancellations")] == ["new"]
        assert await stores.rows("SELECT owner FROM relay.processes") == []
        assert [row["message_id"] for row in await stores.rows("SELECT message_id FROM relay.put_offs")] == ["new"]
        days = await stores.rows(
            "SELECT relname FROM pg_class WHERE relname ~ '^(events|dead_letters)_20' AND relkind = 'r'"
        )
        names = {row["relname"] for row in days}
        assert len(names) == 6
        assert f"events_{_tomorrow()}" in names
        assert not names & {"events_20200101", "dead_letters_20200101"}

    run(story)


def test_places_of_queues_that_a_fault_left_in_use_are_freed(run: Run) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings(keep_seconds=600.0))
        first, second = await stores.accept(draft(queue="q"), draft(queue="q"))
        await stores.claim()
        await stores.rows("UPDATE relay.messages SET state = 'delivered', lease_owner = NULL, started_at = NULL, "
                          "ended_at = now() - interval '1 minute' WHERE id = %(id)s RETURNING id", id=first)  # fmt: skip
        assert await stores.claim() == []
        await janitor.run_once()
        assert [one.id for one in await stores.claim()] == [second]

    run(story)


def test_a_deleted_queue_that_has_messages_is_restored(run: Run) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings())
        await stores.queues.upsert("q", 1, paused=True)
        [message_id] = await stores.accept(draft(queue="q"))
        await stores.rows("DELETE FROM relay.queues RETURNING name")
        await janitor.run_once()
        assert [one.id for one in await stores.claim()] == [message_id]

    run(story)


def test_a_key_without_a_wakeup_is_claimed_from_again(run: Run) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings())
        await stores.accept(draft(flow=FlowControl("k", 1, None)), draft(flow=FlowControl("paused", 1, None)))
        await stores.flow_keys.pause("paused")
        await stores.rows("UPDATE relay.flow_keys SET ready_at = NULL RETURNING key")
        assert await stores.claim() == []
        await janitor.run_once()
        assert [one.flow_key for one in await stores.claim()] == ["k"]
        assert await janitor.run_once() == 0

    run(story)


def test_a_claim_of_an_unknown_process_is_recovered(run: Run) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings())
        await stores.accept(draft())
        await stores.claim()
        await stores.rows("DELETE FROM relay.processes RETURNING owner")
        assert await stores.expire() == 0
        await janitor.run_once()
        assert await stores.expire() == 1

    run(story)


def test_one_process_at_a_time_runs_the_janitor(run: Run, administrator: psycopg.Connection[Any]) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings())
        await stores.rows("INSERT INTO relay.deduplications VALUES ('old', 'm', now() - interval '1 s') RETURNING id")
        administrator.execute("SELECT pg_advisory_lock(%s)", (int.from_bytes(b"janitor", "big"),))
        assert await janitor.run_once() == 0
        administrator.execute("SELECT pg_advisory_unlock_all()")
        assert await janitor.run_once() == 1

    run(story)


def _tomorrow() -> str:
    return later(days=1).strftime("%Y%m%d")


LONG_AGO = """UPDATE relay.flow_keys SET updated_at = now() - interval '3 days 1 hour',
  window_started_at = now() - interval '3 days 1 hour' RETURNING key"""


async def flow_keys(stores: Stores) -> set[str]:
    return {row["key"] for row in await stores.rows("SELECT key FROM relay.flow_keys")}


def test_a_flow_key_that_is_unused_for_long_is_deleted(run: Run) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings())
        keys = ("done", "waits", "active", "queued", "weekly", "paused", "pinned", "cooling-chosen", "cools")
        for key in keys:
            await stores.accept(draft(flow=FlowControl(key, 1, 1, 604_800 if key == "weekly" else 1)))
        await stores.finish(await stores.claim())
        await stores.accept(draft(flow=FlowControl("active", 1, 1)))
        await stores.claim()
        await stores.accept(
            draft(flow=FlowControl("waits", 1, 1), delay_seconds=3600.0),
            draft(queue="q"), draft(flow=FlowControl("queued", 1, 1), queue="q"),
        )  # fmt: skip
        await stores.flow_keys.pause("paused")
        await stores.flow_keys.pin("pinned", Pin(2, None, None))
        await stores.flow_keys.set_cooling("cooling-chosen", enabled=False)
        await stores.rows(
            "UPDATE relay.flow_keys SET cooling_until = now() + interval '1 h' WHERE key = 'cools' RETURNING key"
        )
        await janitor.run_once()
        assert await flow_keys(stores) == set(keys), "all were used just now"
        await stores.rows(LONG_AGO)
        await janitor.run_once()
        assert await flow_keys(stores) == set(keys) - {"done"}

    run(story)


def test_a_flow_key_is_not_deleted_while_a_message_is_accepted_under_it(
    run: Run, administrator: psycopg.Connection[Any]
) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings())
        await stores.accept(draft(flow=FlowControl("k", 1, None)))
        await stores.finish(await stores.claim())
        await stores.rows(LONG_AGO)

        async def accept(connection: Any) -> None:
            await stores.messages.accept_in(connection, [draft(flow=FlowControl("k", 1, None))], 600)
            # The message is not visible yet. The key's row shows that it exists.
            await asyncio.wait_for(janitor.run_once(), 10)

        await stores.database.run(accept)
        assert await flow_keys(stores) == {"k"}
        await stores.finish(await stores.claim())
        await stores.rows(LONG_AGO)

        async def forget(connection: Any) -> asyncio.Task[list[str]]:
            stretch = {"days": 3.0, "batch_max": 10, "after": "", "upto": "k"}
            await connection.execute(queries("janitor")["prune_flow_keys"], stretch)
            accepting = asyncio.create_task(stores.accept(draft(flow=FlowControl("k", 1, None))))
            waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            await asyncio.to_thread(until, lambda: administrator.execute(waits).fetchall())
            return accepting

        await (await stores.database.run(forget))
        assert await flow_keys(stores) == {"k"}, "made anew"
        assert len(await stores.claim()) == 1

    run(story)


class Refusals(Database):
    """Counts the transactions that did not get a lock."""

    count = 0

    async def run(self, work: Any, **options: Any) -> Any:
        try:
            return await super().run(work, **options)
        except psycopg.errors.LockNotAvailable:
            self.count += 1
            raise


def test_a_round_locks_no_other_table_after_one_lock_was_refused(
    run: Run, administrator: psycopg.Connection[Any]
) -> None:
    async def story(stores: Stores) -> None:
        for _ in range(4):
            await stores.rows("SELECT relay.open_period()")
        await age(stores)
        await stores.rows("INSERT INTO relay.deduplications VALUES ('old', 'm', now() - interval '1 s') RETURNING id")
        database = Refusals(stores.database._pool)
        janitor = Janitor(database, settings())
        with administrator.transaction():
            # As pg_dump does.
            administrator.execute("LOCK TABLE relay.messages, relay.events, relay.dead_letters IN ACCESS SHARE MODE")
            assert await janitor.run_once() == 1, "what needs no table's lock is done"
        assert database.count == 1
        assert await periods(stores) == [1, 2, 3, 4, 5]
        await janitor.run_once()
        assert await periods(stores) == [5]

    run(story)


def test_periods_that_are_in_use_do_not_prevent_the_drop_of_later_ones(run: Run) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings())
        for _ in range(PERIODS_MAX + 2):
            await stores.accept(draft())
            await stores.claim()
            await stores.rows("SELECT relay.open_period()")
        # The last but one is empty.
        await stores.rows("SELECT relay.open_period()")
        await age(stores)
        for _ in range(2):
            await janitor.run_once()
        assert await periods(stores) == [*range(1, PERIODS_MAX + 3), PERIODS_MAX + 4]

    run(story)


def test_a_period_in_which_a_queue_is_busy_is_emptied_when_the_queue_is_idle(
    run: Run, administrator: psycopg.Connection[Any]
) -> None:
    async def story(stores: Stores) -> None:
        janitor = Janitor(stores.database, settings())
        await stores.queues.upsert("q", 1, paused=True)
        [queued] = await stores.accept(draft(queue="q"))
        [free] = await stores.accept(draft(delay_seconds=3600.0))
        await stores.rows("SELECT relay.open_period()")
        await age(stores)
        with administrator.transaction():
            administrator.execute("SELECT FROM relay.queues FOR UPDATE")
            await janitor.run_once()
            found = await stores.rows("SELECT id, period FROM relay.messages")
            assert {row["id"]: row["period"] for row in found} == {queued: 1, free: 0}
        await janitor.run_once()
        assert await periods(stores) == [2]
        assert await stores.states() == {queued: "queued", free: "waiting"}

    run(story)
