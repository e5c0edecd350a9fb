"""Why a message waits, and when its further attempts would be. Pure. Both are our additions to the protocol."""

from __future__ import annotations

from datetime import datetime, timedelta

from services.relay.outcome.backoff import own_delay_seconds
from services.relay.protocol.views import FlowView, MessageView, QueueView, Waiting

# The limit on listed attempts. A list of a thousand retries has no use.
PLAN_MAX = 20


def why_waiting(message: MessageView, now: datetime) -> Waiting | None:
    """The first condition that holds a message back. None when it does not wait.

    The conditions apply in this order: its own time, a pause, its place in the queue, cooling, the key's limits.
    """
    if message.state not in {"queued", "waiting"}:
        return None
    # A queued message first waits for a slot, then for the rest of its own time.
    if message.state == "waiting" and message.due_at > now:
        if message.gate.put_offs > 0:
            return Waiting(
                "put_off", message.due_at, f"put off {message.gate.put_offs} times: {message.gate.put_off_error}"
            )
        if message.retried > 0:
            return Waiting("retry", message.due_at, f"attempt {message.retried} failed; the next waits until then")
        return Waiting("delay", message.due_at, "the sender asked for a delay")
    queue, flow = message.gate.queue, message.gate.flow
    return (
        _paused(queue, flow)
        or _queued(queue, message.gate.ahead)
        or _limited(flow, now)
        or Waiting("due", None, "it is taken up as soon as a relay has room")
    )


def _paused(queue: QueueView | None, flow: FlowView | None) -> Waiting | None:
    if queue is not None and queue.paused:
        return Waiting("paused", None, f"queue {queue.name} is paused")
    if flow is not None and flow.paused:
        return Waiting("paused", None, f"flow-control key {flow.key} is paused")
    return None


def _queued(queue: QueueView | None, ahead: int) -> Waiting | None:
    if queue is None or ahead < queue.parallelism:
        return None
    return Waiting("queue", None, f"{ahead} before it in queue {queue.name}, of which {queue.parallelism} at once")


def _limited(flow: FlowView | None, now: datetime) -> Waiting | None:
    if flow is None:
        return None
    if flow.cooling_until is not None and flow.cooling_until > now:
        return Waiting("cooling", flow.cooling_until, f"a destination of key {flow.key} asked to wait")
    if flow.parallelism_max is not None and flow.parallelism_count >= flow.parallelism_max:
        return Waiting(
            "flow_control", None, f"key {flow.key}: {flow.parallelism_count} of {flow.parallelism_max} at once"
        )
    if flow.rate_max is None or flow.rate_count < flow.rate_max:
        return None
    end = None if flow.period_start is None else flow.period_start + timedelta(seconds=flow.period_seconds)
    if end is not None and end <= now:
        return None
    return Waiting(
        "flow_control", end, f"key {flow.key}: {flow.rate_count} of {flow.rate_max} in {flow.period_seconds} s"
    )


def timetable(message: MessageView, now: datetime) -> list[tuple[int, datetime]]:
    """The further attempts, if each fails at once and no destination asks for another time: (number, earliest time)."""
    if message.state in {"queued", "waiting"}:
        number, moment = message.retried, max(message.due_at, now)
    elif message.state == "active":
        number, moment = message.retried + 1, _later(now, message.retried, message.options.retry_delay)
    else:
        return []
    plan: list[tuple[int, datetime]] = []
    while number <= message.retries_max and len(plan) < PLAN_MAX:
        plan.append((number, moment))
        moment = _later(moment, number, message.options.retry_delay)
        number += 1
    return plan


def _later(moment: datetime, failed: int, expression: str | None) -> datetime:
    return moment + timedelta(seconds=own_delay_seconds(failed, expression))
