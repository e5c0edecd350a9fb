"""The reason why a message waits, and the times of its attempts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.relay.message import State
from services.relay.options import Options
from services.relay.protocol.views import FlowView, Gate, MessageView, QueueView, WaitReason
from services.relay.protocol.waiting import PLAN_MAX, timetable, why_waiting
from tests.unit.relay.quick import quick

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=30)
DUE = MessageView(
    id="msg_1", url="https://a.example", method="POST", headers={}, body=b"", retries_max=3, created_at=NOW,
    not_before=NOW, state="waiting", due_at=NOW,
)  # fmt: skip
QUEUE = QueueView("q", NOW, NOW)
FLOW = FlowView(
    "key", parallelism_max=2, parallelism_count=1, rate_max=10, rate_count=9, period_start=NOW, period_seconds=60
)


@pytest.mark.parametrize(
    ("message", "reason", "until"),
    [
        (DUE, "due", None),
        (replace(DUE, due_at=LATER), "delay", LATER),
        (replace(DUE, due_at=LATER, retried=1), "retry", LATER),
        (replace(DUE, due_at=LATER, retried=1, gate=Gate(put_offs=2, put_off_error="no place")), "put_off", LATER),
        (replace(DUE, gate=Gate(queue=replace(QUEUE, paused=True))), "paused", None),
        (replace(DUE, gate=Gate(flow=replace(FLOW, paused=True))), "paused", None),
        (replace(DUE, gate=Gate(queue=QUEUE, ahead=1)), "queue", None),
        (replace(DUE, gate=Gate(queue=QUEUE, ahead=0)), "due", None),
        (replace(DUE, state="queued", due_at=LATER, gate=Gate(queue=QUEUE, ahead=1)), "queue", None),
        (replace(DUE, state="queued", gate=Gate(queue=replace(QUEUE, paused=True), ahead=1)), "paused", None),
        (replace(DUE, gate=Gate(flow=replace(FLOW, cooling_until=LATER))), "cooling", LATER),
        (replace(DUE, gate=Gate(flow=replace(FLOW, cooling_until=NOW))), "due", None),
        (replace(DUE, gate=Gate(flow=replace(FLOW, parallelism_count=2))), "flow_control", None),
        (replace(DUE, gate=Gate(flow=replace(FLOW, rate_count=10))), "flow_control", NOW + timedelta(seconds=60)),
        (
            replace(DUE, gate=Gate(flow=replace(FLOW, rate_count=10, period_start=NOW - timedelta(seconds=60)))),
            "due",
            None,
        ),
        (replace(DUE, gate=Gate(flow=FLOW)), "due", None),
        (replace(DUE, due_at=LATER, gate=Gate(queue=replace(QUEUE, paused=True))), "delay", LATER),
    ],
)
def test_the_first_reason_is_named(message: MessageView, reason: WaitReason, until: datetime | None) -> None:
    waiting = why_waiting(message, NOW)
    assert waiting is not None
    assert (waiting.reason, waiting.until) == (reason, until)
    assert waiting.detail


@pytest.mark.parametrize("state", ["active", "delivered", "failed", "cancelled"])
def test_a_message_that_does_not_wait_has_no_reason(state: State) -> None:
    assert why_waiting(replace(DUE, state=state), NOW) is None


def test_the_times_are_those_of_the_default_backoff() -> None:
    plan = timetable(DUE, NOW)
    assert [number for number, _ in plan] == [0, 1, 2, 3]
    assert [round((moment - NOW).total_seconds()) for _, moment in plan] == [0, 12, 161, 1969]


def test_an_attempt_in_progress_is_not_a_future_one() -> None:
    message = replace(DUE, state="active", retried=1, options=Options(retry_delay="1000"))
    assert timetable(message, NOW) == [(2, NOW + timedelta(seconds=1)), (3, NOW + timedelta(seconds=2))]
    assert timetable(replace(DUE, state="delivered"), NOW) == []


@quick
@given(
    st.integers(0, 1000), st.integers(0, 1000), st.sampled_from([None, "1000", "1000/(3-retried)", "pow(10, retried)"])
)
def test_the_times_are_few_and_in_order(retries_max: int, retried: int, expression: str | None) -> None:
    plan = timetable(
        replace(DUE, retries_max=retries_max, retried=retried, options=Options(retry_delay=expression)), NOW
    )
    assert len(plan) == min(PLAN_MAX, max(0, retries_max - retried + 1))
    moments = [moment for _, moment in plan]
    assert moments == sorted(moments)
    assert all(moment >= NOW for moment in moments)
