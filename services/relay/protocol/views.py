"""The data that the stores pass to `answers`: the relay's rows as frozen dataclasses. All times are aware."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from services.relay.message import State
from services.relay.options import NO_OPTIONS, Options

WaitReason = Literal["delay", "retry", "flow_control", "cooling", "queue", "paused", "put_off", "due"]
EventState = Literal[
    "CREATED", "ACTIVE", "RETRY", "ERROR", "DELIVERED", "FAILED", "CANCEL_REQUESTED", "CANCELED", "IN_PROGRESS"
]
ScheduleState = Literal["IN_PROGRESS", "SUCCESS", "FAIL"]


@dataclass(frozen=True)
class FlowView:
    """A flow-control key with its limits (None: none), and their present usage.

    `period_start` is the start of the current rate window. `cooling_until` is the end of the pause that a destination
    asked for.
    """

    key: str
    waiting: int = 0
    parallelism_max: int | None = None
    parallelism_count: int = 0
    rate_max: int | None = None
    rate_count: int = 0
    period_seconds: int = 1
    period_start: datetime | None = None
    paused: bool = False
    pinned_parallelism: bool = False
    pinned_rate: bool = False
    pinned_cooling: bool = False
    cooling: bool = True
    cooling_until: datetime | None = None


@dataclass(frozen=True)
class QueueView:
    """`lag` is the number of messages that have not ended."""

    name: str
    created_at: datetime
    updated_at: datetime
    parallelism: int = 1
    paused: bool = False
    lag: int = 0


@dataclass(frozen=True)
class EndpointView:
    url: str
    name: str | None = None


@dataclass(frozen=True)
class TopicView:
    """A URL group. `headers` are the default headers of messages published to it, by name."""

    name: str
    created_at: datetime
    updated_at: datetime
    endpoints: tuple[EndpointView, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AttemptView:
    """One attempt, from `number` 0. `ended_at` None: in progress. `status` None: no answer came,
    and `error` says why.
    """

    number: int
    started_at: datetime
    ended_at: datetime | None = None
    status: int | None = None
    outcome: str | None = None
    error: str | None = None
    next_retry_at: datetime | None = None


@dataclass(frozen=True)
class Gate:
    """The conditions, besides its own time, that may hold a message back. `ahead`: the messages before it in its queue
    that have not ended. `put_offs` is counted since its last attempt; the last one was for `put_off_error`.
    """

    flow: FlowView | None = None
    queue: QueueView | None = None
    ahead: int = 0
    put_offs: int = 0
    put_off_error: str = ""


OPEN_GATE = Gate()


@dataclass(frozen=True)
class Waiting:
    """Why a message waits, and until when, if that is known."""

    reason: WaitReason
    until: datetime | None
    detail: str


@dataclass(frozen=True)
class MessageView:
    """A message. `due_at` is the earliest time of its next attempt. `headers` are the delivered ones, in plain text."""

    id: str
    url: str
    method: str
    headers: Mapping[str, str]
    body: bytes
    retries_max: int
    created_at: datetime
    not_before: datetime
    state: State
    due_at: datetime
    retried: int = 0
    timeout_ms: int | None = None
    labels: tuple[str, ...] = ()
    queue: str | None = None
    topic: str | None = None
    endpoint: str | None = None
    schedule_id: str | None = None
    caller_ip: str = ""
    options: Options = NO_OPTIONS
    attempts: tuple[AttemptView, ...] = ()
    gate: Gate = OPEN_GATE


@dataclass(frozen=True)
class DeadLetterView:
    """A dead letter: the message as it failed, and the last answer. `response_status` 0: no answer came."""

    id: str
    message: MessageView
    response_status: int
    response_headers: Mapping[str, list[str]]
    response_body: bytes


@dataclass(frozen=True)
class EventView:
    """One event of a message, with the facts still known of the message. It has `flow_key` also when its options are
    unknown."""

    time: datetime
    message_id: str
    state: EventState
    url: str
    method: str | None = None
    headers: Mapping[str, str] | None = None
    body: bytes | None = None
    retries_max: int | None = None
    timeout_ms: int | None = None
    labels: tuple[str, ...] = ()
    queue: str | None = None
    flow_key: str | None = None
    topic: str | None = None
    endpoint: str | None = None
    schedule_id: str | None = None
    caller_ip: str = ""
    options: Options = NO_OPTIONS
    error: str | None = None
    next_delivery_at: datetime | None = None
    response_status: int | None = None
    response_headers: Mapping[str, list[str]] | None = None
    response_body: bytes | None = None


@dataclass(frozen=True)
class ScheduleView:
    """A schedule as stored: `options` and `body` as in `schedule.ScheduleDraft`."""

    id: str
    cron: str
    destination: str
    options: Mapping[str, str]
    body: bytes
    created_at: datetime
    queue: str | None = None
    paused: bool = False
    caller_ip: str = ""
    last_at: datetime | None = None
    next_at: datetime | None = None
    last_states: Mapping[str, ScheduleState] = field(default_factory=dict)
    error: str | None = None
