"""Schedules on a real database; the clock is the test's."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from services.relay.api.authentication import Authenticator
from services.relay.engine.scheduler import Scheduler
from services.relay.protocol.cron import parse_cron
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.schedule import ScheduleDraft
from services.relay.protocol.views import EndpointView
from services.relay.store.schedules import BROKEN_PAUSE, Schedules
from services.relay.store.tokens import Token
from tests.integration.relay_store.conftest import Run, Stores

NOON = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def schedule(schedule_id: str = "s", **changes: Any) -> ScheduleDraft:
    given: dict[str, Any] = {"schedule_id": schedule_id, "cron": parse_cron("* * * * *"), "destination": "https://example.com/x",
             "queue": None, "options": {"upstash-retries": "5", "upstash-forward-authorization": "Bearer very-secret"},
             "body": b"hello"}  # fmt: skip
    return ScheduleDraft(**(given | changes))


def test_a_schedule_fires_at_its_time_once_with_its_options(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.schedules.upsert(schedule(), NOON)
        assert await stores.schedules.seconds_to_next(NOON) == 30
        assert await stores.schedules.fire_once(10, NOON + timedelta(seconds=29)) == 0
        assert await stores.schedules.fire_once(10, NOON + timedelta(seconds=30)) == 1
        assert await stores.schedules.fire_once(10, NOON + timedelta(seconds=30)) == 0
        [message] = await stores.claim()
        assert (message.url, message.body, message.schedule_id) == ("https://example.com/x", b"hello", "s")
        assert (message.retries_max, message.headers["Authorization"]) == (5, "Bearer very-secret")
        view = await stores.schedules.get("s")
        assert view is not None
        assert view.next_at == datetime(2026, 3, 1, 12, 2, tzinfo=UTC)
        assert view.last_at == NOON + timedelta(seconds=30)
        assert view.last_states == {message.id: "IN_PROGRESS"}
        await stores.finish([message])
        [view] = await stores.schedules.all()
        assert view.last_states == {message.id: "SUCCESS"}

    run(story)


def test_states_are_known_after_the_message_was_deleted(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.schedules.upsert(schedule(), NOON)
        await stores.schedules.fire_once(10, NOON + MINUTE)
        await stores.finish(await stores.claim(), 500, final=True)
        await stores.rows("DELETE FROM relay.messages RETURNING id")
        [view] = await stores.schedules.all()
        assert list(view.last_states.values()) == ["FAIL"]

    run(story)


def test_missed_times_are_replaced_by_one_firing(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.schedules.upsert(schedule(), NOON)
        back = NOON + timedelta(hours=5)
        assert await stores.schedules.fire_once(10, back) == 1
        assert await stores.schedules.fire_once(10, back) == 0
        assert len(await stores.states()) == 1
        assert await stores.schedules.seconds_to_next(back) == 30

    run(story)


def test_a_paused_schedule_does_not_fire_and_resumes_from_now(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.schedules.upsert(schedule(), NOON)
        assert await stores.schedules.pause("s")
        assert await stores.schedules.fire_once(10, NOON + timedelta(hours=1)) == 0
        assert await stores.schedules.seconds_to_next(NOON) is None
        await stores.schedules.upsert(schedule(body=b"new"), NOON)
        view = await stores.schedules.get("s")
        assert view is not None
        assert (view.paused, view.body) == (True, b"new")
        assert await stores.schedules.resume("s", NOON + timedelta(hours=1))
        assert await stores.schedules.fire_once(10, NOON + timedelta(hours=1)) == 0
        assert await stores.schedules.fire_once(10, NOON + timedelta(hours=1, seconds=30)) == 1
        assert not await stores.schedules.resume("unknown", NOON)
        assert not await stores.schedules.pause("unknown")

    run(story)


def test_a_group_gets_a_message_for_each_endpoint_with_its_default_headers(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.topics.add_endpoints(
            "g", [EndpointView("https://a.example", "a"), EndpointView("https://b.example")]
        )
        await stores.topics.set_headers("g", {"Upstash-Method": "PUT", "Upstash-Retries": "1"})
        await stores.schedules.upsert(schedule(destination="g"), NOON)
        await stores.schedules.fire_once(10, NOON + MINUTE)
        found = {one.url: one for one in await stores.claim()}
        assert set(found) == {"https://a.example", "https://b.example"}
        first = found["https://a.example"]
        assert (first.topic, first.endpoint, first.method, first.retries_max) == ("g", "a", "PUT", 5)

    run(story)


def test_a_broken_schedule_shows_its_error_and_does_not_stop_the_others(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.schedules.upsert(schedule("a", destination="nobody"), NOON)
        await stores.schedules.upsert(schedule("b"), NOON)
        await stores.schedules.upsert(schedule("c"), NOON)
        await stores.rows("UPDATE relay.schedules SET sealed = 'junk' WHERE id = 'b' RETURNING id")
        assert await stores.schedules.fire_once(10, NOON + MINUTE) == 3
        assert len(await stores.claim()) == 1
        views = {view.id: view for view in await stores.schedules.all()}
        assert views["a"].error == "URL group nobody has no endpoints"
        assert "RELAY_ENCRYPTION_KEYS" in (views["b"].error or "")
        assert views["c"].error is None
        assert views["a"].next_at == datetime(2026, 3, 1, 12, 2, tzinfo=UTC)
        await stores.topics.add_endpoints("nobody", [EndpointView("https://a.example")])
        await stores.schedules.fire_once(10, NOON + 2 * MINUTE)
        mended = await stores.schedules.get("a")
        assert mended is not None
        assert mended.error is None

    run(story)


def test_a_schedule_without_a_next_time_does_not_stop_the_others(run: Run) -> None:
    async def story(stores: Stores) -> None:
        # The last days of the calendar: a firing in January has no time that a datetime can represent.
        last = datetime(9999, 12, 30, tzinfo=UTC)
        await stores.schedules.upsert(schedule("a", cron=parse_cron("0 0 1 1 *")), NOON)
        await stores.schedules.upsert(schedule("b"), NOON)
        assert await stores.schedules.fire_once(10, last) == 2
        views = {view.id: view for view in await stores.schedules.all()}
        assert "no time after 9999-12-30" in (views["a"].error or "")
        assert views["a"].next_at == last + BROKEN_PAUSE
        assert views["b"].error is None
        assert len(await stores.claim()) == 1
        with pytest.raises(InvalidRequestError, match="no time after"):
            await stores.schedules.upsert(schedule("c", cron=parse_cron("0 0 1 1 *")), last)

    run(story)


def test_a_schedule_that_the_database_refuses_does_not_stop_the_others(run: Run) -> None:
    async def story(stores: Stores) -> None:
        # No value accepted over HTTP is too long for an index. This value stands for any that the database refuses.
        await stores.database.execute("CREATE INDEX ON relay.messages (caller_ip)", {})
        await stores.schedules.upsert(schedule("a", caller_ip=secrets.token_hex(50_000)), NOON)
        await stores.schedules.upsert(schedule("b"), NOON)
        assert await stores.schedules.fire_once(10, NOON + MINUTE) == 2
        assert len(await stores.claim()) == 1
        refused = await stores.schedules.get("a")
        assert refused is not None
        assert "index row" in (refused.error or "")

    run(story)


def test_two_processes_fire_a_schedule_once(run: Run) -> None:
    async def story(stores: Stores) -> None:
        for n in range(20):
            await stores.schedules.upsert(schedule(f"s{n}"), NOON)
        counts = await asyncio.gather(*(stores.schedules.fire_once(20, NOON + MINUTE) for _ in range(4)))
        assert sum(counts) == 20
        assert len(await stores.states()) == 20

    run(story)


def test_a_deleted_schedule_is_gone(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.schedules.upsert(schedule(), NOON)
        assert await stores.schedules.delete("s")
        assert await stores.schedules.get("s") is None
        assert not await stores.schedules.delete("s")

    run(story)


def test_the_loop_fires_at_the_time_and_not_a_polling_interval_later(run: Run) -> None:
    async def story(stores: Stores) -> None:
        fired = asyncio.Event()
        scheduler = Scheduler(
            stores.schedules, now=lambda: datetime.now(UTC), fired=fired.set, log=structlog.get_logger()
        )
        loop = asyncio.create_task(scheduler.run())
        made_at = datetime.now(UTC)
        await stores.schedules.upsert(schedule(cron=parse_cron("* * * * * *")), made_at)
        scheduler.wake()
        await asyncio.wait_for(fired.wait(), 20)
        loop.cancel()
        [row] = await stores.rows("SELECT min(created_at) AS created_at FROM relay.messages")
        its_time = made_at.replace(microsecond=0) + timedelta(seconds=1)
        # Within a second, unless a busy machine adds more.
        assert its_time <= row["created_at"] < its_time + timedelta(seconds=3)

    run(story)


async def nobody(_token: str) -> Token | None:
    return None


def test_firings_count_against_the_limit_of_the_token_that_created_the_schedule(run: Run) -> None:
    async def story(stores: Stores) -> None:
        clock = [0.0]
        limit = Authenticator("root", nobody, lambda: clock[0])
        limited, free = (
            Token("limited", writes=True, publishes_per_second=5),
            Token("free", writes=True, publishes_per_second=None),
        )
        schedules = Schedules(
            stores.database, stores.encryption, stores.messages, stores.topics, wait_seconds=limit.wait_seconds
        )
        every_second = parse_cron("* * * * * *")
        for n in range(15):
            await schedules.upsert(schedule(f"limited-{n}", cron=every_second), NOON, limited)
        await schedules.upsert(schedule("free", cron=every_second), NOON, free)
        for _ in range(100):
            clock[0] += 0.1
            await schedules.fire_once(50, NOON + timedelta(seconds=clock[0]))
        fired = await stores.rows("SELECT schedule_id, count(*) AS n FROM relay.messages GROUP BY schedule_id")
        by_id = {row["schedule_id"]: row["n"] for row in fired}
        assert by_id.pop("free") == 10
        # A second's worth at once, and then five per second, shared by all of them.
        assert 45 <= sum(by_id.values()) <= 55
        assert len(by_id) == 15
        assert max(by_id.values()) <= 6
        # Publishing may use the rest.
        assert limit.wait_seconds(limited, 5) > 0

    run(story)


def test_a_firing_into_a_group_counts_once_for_each_endpoint(run: Run) -> None:
    async def story(stores: Stores) -> None:
        counted: list[tuple[str, int]] = []

        def wait_seconds(token: Token, publishes: int) -> float:
            counted.append((token.name, publishes))
            return 0.0

        schedules = Schedules(
            stores.database, stores.encryption, stores.messages, stores.topics, wait_seconds=wait_seconds
        )
        await stores.topics.add_endpoints("g", [EndpointView(f"https://{n}.example") for n in range(3)])
        await schedules.upsert(schedule(destination="g"), NOON, Token("t", writes=True, publishes_per_second=5))
        assert await schedules.fire_once(10, NOON + MINUTE) == 1
        assert counted == [("t", 3)]

    run(story)
