"""The log on a real database."""

from __future__ import annotations

from typing import Any

import pytest

from services.relay.options import CallbackOptions, FlowControl, Options, Redaction
from services.relay.protocol.cursor import Cursor, decode_cursor
from services.relay.protocol.filters import Filters
from services.relay.protocol.invalid import InvalidRequestError
from tests.integration.relay_store.conftest import Run, Stores, draft


def test_the_steps_of_a_message_are_listed_newest_first(run: Run) -> None:
    async def story(stores: Stores) -> None:
        [message_id] = await stores.accept(draft(labels=("l",), retry_delay="0"))
        await stores.finish(await stores.claim(), 503, b"busy" * 1000)
        await stores.finish(await stores.claim())
        events, cursor = await stores.events.list(Filters(message_ids=(message_id,)))
        assert cursor is None
        assert [event.state for event in events] == ["DELIVERED", "ACTIVE", "RETRY", "ERROR", "ACTIVE", "CREATED"]
        error = events[3]
        assert (error.response_status, error.response_headers) == (503, {"X-Answer": ["yes"]})
        assert (error.url, error.labels, error.retries_max) == ("https://example.com/path?q=1", ("l",), 3)
        trimmed, _ = await stores.events.list(Filters(states=("ERROR",), trim_body=4))
        assert [event.response_body for event in trimmed] == [b"busy"]
        earliest, _ = await stores.events.list(Filters(earliest_first=True))
        assert earliest == events[::-1]

    run(story)


def test_pages_hold_each_event_once_in_either_order(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(*(draft() for _ in range(25)))
        await stores.finish(await stores.claim())
        for earliest_first in (False, True):
            seen: list[tuple[str, str]] = []
            cursor: Cursor | None = None
            for _ in range(8):
                page, text = await stores.events.list(Filters(count=10, cursor=cursor, earliest_first=earliest_first))
                seen += [(event.message_id, event.state) for event in page]
                cursor = None if text is None else decode_cursor(text)
                if cursor is None:
                    break
            assert len(seen) == len(set(seen)) == 75
        with pytest.raises(InvalidRequestError):
            await stores.events.list(Filters(cursor=Cursor(1, "no number")))

    run(story)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"states": ("CREATED",)}, {0, 1}),
        ({"states": ("DELIVERED",), "label": ("l1",)}, {0}),
        ({"label": ("l2",)}, {1}),
        ({"host": ("one.example",)}, {0}),
        ({"path": ("/",)}, {1}),
        ({"url": ("https://two.example",)}, {1}),
        ({"flow_key": ("k",)}, {0}),
        ({"queue": ("q",)}, {1}),
        ({"topic": ("t",)}, {0}),
        ({"schedule": ("s",)}, {0}),
        ({"caller_ip": ("10.0.0.1",)}, {1}),
        ({"response_status": (200,)}, {0, 1}),
        ({"to_ms": 1000}, set()),
        ({"from_ms": 1000, "topic": ("t",)}, {0}),
    ],
)
def test_filters_are_or_within_a_field_and_and_between_fields(
    run: Run, filters: dict[str, Any], expected: set[int]
) -> None:
    async def story(stores: Stores) -> None:
        flow = FlowControl("k", 1, None)
        ids = await stores.accept(
            draft(url="https://one.example:8080/a/b?c", labels=("l1",), topic="t", schedule_id="s", flow=flow),
            draft(url="https://two.example", labels=("l3", "l2"), queue="q", caller_ip="10.0.0.1"),
        )
        await stores.finish(await stores.claim())
        events, _ = await stores.events.list(Filters(**filters))
        assert {ids.index(event.message_id) for event in events} == expected

    run(story)


def test_attempts_have_their_times_and_results(run: Run) -> None:
    async def story(stores: Stores) -> None:
        [message_id] = await stores.accept(draft(retry_delay="0"))
        await stores.finish(await stores.claim(), 503)
        [one] = await stores.claim()
        first, second = await stores.events.attempts(message_id)
        assert (first.number, first.status, first.outcome) == (0, 503, "retry")
        assert first.ended_at is not None
        assert first.next_retry_at is not None
        assert (second.number, second.ended_at, second.outcome) == (1, None, None)
        await stores.finish([one])
        assert [(a.number, a.outcome, a.status) for a in await stores.events.attempts(message_id)] == [
            (0, "retry", 503),
            (1, "delivered", 200),
        ]

    run(story)


def test_a_call_whose_process_died_is_an_attempt_of_unknown_fate(run: Run) -> None:
    async def story(stores: Stores) -> None:
        [message_id] = await stores.accept(draft())
        await stores.claim()
        await stores.processes.release()
        assert await stores.expire() == 1
        await stores.claim()
        first, second = await stores.events.attempts(message_id)
        assert (first.number, second.number) == (0, 0)
        assert "fate unknown" in (first.error or "")
        assert second.ended_at is None

    run(story)


def test_each_row_has_the_options_of_its_message(run: Run) -> None:
    async def story(stores: Stores) -> None:
        options = Options(
            retry_delay="0", flow=FlowControl("k", 3, None), redact=Redaction(body=True),
            callback=CallbackOptions("https://example.com/c", headers={"X-C": "2"}),
        )  # fmt: skip
        asked = draft(headers={"X-A": "1"}, options=options, body=b"small")
        _, large = await stores.accept(asked, draft(body=b"x" * 2049))
        await stores.finish(await stores.claim(), 404, final=True)
        events, _ = await stores.events.list(Filters(flow_key=("k",)))
        assert [event.state for event in events] == ["FAILED", "ERROR", "ACTIVE", "CREATED"]
        for event in events:
            assert (event.headers, event.options, event.body) == ({"X-A": "1"}, options, b"small")
        shown, _ = await stores.events.list(Filters(message_ids=(large,)))
        assert [event.body for event in shown] == [None] * 4
        await stores.rows("DELETE FROM relay.messages RETURNING id")
        [created] = (await stores.events.list(Filters(flow_key=("k",), states=("CREATED",))))[0]
        assert (created.headers, created.body) == ({"X-A": "1"}, None), "no body outlives its message"

    run(story)


def test_a_row_that_no_key_decrypts_is_shown_without_its_details(run: Run) -> None:
    async def story(stores: Stores) -> None:
        for details in ("junk", None):
            await stores.accept(draft(headers={"X-A": "1"}, body=b"secret"))
            await stores.rows("UPDATE relay.events SET details = %(details)s RETURNING at", details=details)
        events, _ = await stores.events.list(Filters())
        assert [(event.headers, event.body, event.url[:19]) for event in events] == [
            (None, None, "https://example.com")
        ] * 2

    run(story)


def test_a_failure_has_its_reason_on_each_of_its_rows(run: Run) -> None:
    async def story(stores: Stores) -> None:
        [message_id] = await stores.accept(draft(retries_max=1, retry_delay="0"))
        await stores.finish(await stores.claim(), 503, b"busy")
        await stores.finish(await stores.claim(), 404, b"gone")
        events, _ = await stores.events.list(Filters(message_ids=(message_id,)))
        told = [
            (event.state, event.error, event.response_body)
            for event in events
            if event.state not in {"CREATED", "ACTIVE"}
        ]
        assert told == [
            ("FAILED", "the destination answered 404", b"gone"),
            ("ERROR", "the destination answered 404", b"gone"),
            ("RETRY", "the destination answered 503", None),
            ("ERROR", "the destination answered 503", b"busy"),
        ]

    run(story)
