"""Messages as they are shown, on a real database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from services.relay.ending import ending_of
from services.relay.options import FlowControl
from services.relay.outcome.outcome import Answer
from services.relay.protocol.filters import Filters
from tests.integration.relay_store.conftest import Run, Stores, draft, later


def test_a_message_is_shown_with_its_attempts_and_the_reason_why_it_waits(run: Run) -> None:
    async def story(stores: Stores) -> None:
        flow = FlowControl("k", 1, None)
        _, second = await stores.accept(draft(flow=flow), draft(flow=flow, headers={"X-A": "1"}))
        await stores.claim()
        view = await stores.views.get(second, 60)
        assert view is not None
        assert (view.state, view.headers, view.options.flow) == ("waiting", {"X-A": "1"}, flow)
        assert view.gate.flow is not None
        assert (view.gate.flow.parallelism_count, view.gate.flow.waiting) == (1, 1)
        assert view.attempts == ()
        assert await stores.views.get("msg_unknown", 60) is None

    run(story)


def test_an_ended_message_is_shown_for_some_time_and_a_cancelled_one_is_not(run: Run) -> None:
    async def story(stores: Stores) -> None:
        delivered, cancelled = await stores.accept(draft(), draft(delay_seconds=60.0))
        await stores.finish(await stores.claim())
        view = await stores.views.get(delivered, 60)
        assert view is not None
        assert (view.state, len(view.attempts)) == ("delivered", 1)
        assert await stores.views.get(delivered, 0) is None
        assert await stores.views.get(cancelled, 60) is not None
        await stores.messages.cancel([cancelled])
        assert await stores.views.get(cancelled, 60) is None

    run(story)


def test_a_message_that_is_put_off_writes_no_log_and_shows_the_reason(run: Run) -> None:
    async def put_off(stores: Stores) -> int:
        answer = Answer(0, (), b"", error="no place for it", fate="not attempted", later_seconds=0.0)
        # Due again at once, so that the test need not wait.
        await stores.rows("UPDATE relay.messages SET due_at = now() RETURNING id")
        [claimed] = await stores.claim()
        assert len(await stores.messages.finish([ending_of(claimed, answer, datetime.now(UTC))])) == 1
        return claimed.put_offs

    async def story(stores: Stores) -> None:
        for flow in (None, FlowControl("k", 1, None)):
            [message_id] = await stores.accept(draft(flow=flow))
            assert [await put_off(stores) for _ in range(3)] == [0, 1, 2]
            states = "SELECT state FROM relay.events WHERE message_id = %(id)s ORDER BY at, sequence"
            assert [row["state"] for row in await stores.rows(states, id=message_id)] == ["CREATED", "ACTIVE"]
            view = await stores.views.get(message_id, 60)
            assert view is not None
            assert (view.attempts, view.gate.put_offs, view.gate.put_off_error) == ((), 3, "no place for it")
            await stores.rows("UPDATE relay.messages SET due_at = now() RETURNING id")
            [claimed] = await stores.claim()
            await stores.finish([claimed])
            view = await stores.views.get(message_id, 60)
            assert view is not None
            assert [(one.started_at, one.outcome) for one in view.attempts] == [(claimed.started_at, "delivered")]
            assert await stores.rows("SELECT FROM relay.put_offs") == []

    run(story)


def test_a_queued_message_shows_the_number_of_messages_before_it(run: Run) -> None:
    async def story(stores: Stores) -> None:
        ids = await stores.accept(*(draft(queue="q") for _ in range(3)))
        views = [await stores.views.get(message_id, 60) for message_id in ids]
        assert [view.gate.ahead for view in views if view] == [0, 1, 2]
        assert [view.state for view in views if view] == ["waiting", "queued", "queued"]
        assert all(view.gate.queue is not None and view.gate.queue.lag == 3 for view in views if view)

    run(story)


def test_a_message_that_no_key_decrypts_is_shown_without_headers(run: Run) -> None:
    async def story(stores: Stores) -> None:
        [message_id] = await stores.accept(draft(headers={"X-A": "1"}, flow=FlowControl("k", 1, None)))
        await stores.rows("UPDATE relay.messages SET sealed = 'junk' RETURNING id")
        view = await stores.views.get(message_id, 60)
        assert view is not None
        assert (view.headers, view.url) == ({}, "https://example.com/path?q=1")
        assert view.options.flow == FlowControl("k", None, None)

    run(story)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, {0, 1, 2}),
        ({"label": ("l1",)}, {0}),
        ({"label": ("second",)}, {1}),
        ({"label": ("l1", "second")}, {0, 1}),
        ({"queue": ("q",)}, {1}),
        ({"flow_key": ("k",)}, {2}),
        ({"host": ("two.example",)}, {1}),
        ({"from_ms": int(later(hours=1).timestamp() * 1000)}, set()),
        ({"to_ms": int(later(hours=1).timestamp() * 1000)}, {0, 1, 2}),
    ],
)
def test_live_messages_are_selected_by_filters(run: Run, filters: dict[str, Any], expected: set[int]) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(draft(labels=("l1",)))
        await stores.finish(await stores.claim())
        ids = await stores.accept(
            draft(labels=("l1",)),
            draft(url="https://two.example", labels=("first", "second"), queue="q"),
            draft(flow=FlowControl("k", 1, None), delay_seconds=60.0),
        )
        await stores.claim(1)
        found = await stores.views.select_ids(Filters(**filters), 100)
        assert found == sorted(found)
        assert {ids.index(message_id) for message_id in found} == expected
        assert len(await stores.views.select_ids(Filters(**filters), 1)) == min(1, len(expected))

    run(story)
