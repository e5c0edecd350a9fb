"""The JSON objects of the second version of the protocol. Pure.

Source: the vendor's documentation and the fields that its clients read. Where these differ, both spellings are given.
`state`, `retried`, `nextDeliveryTime`, `waiting`, `attempts` and `plan` of a message, and `cooling`, `isPinnedCooling`
and `coolingUntil` of a key are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from services.relay.protocol.callback import milliseconds
from services.relay.protocol.publishing import draft
from services.relay.protocol.redaction import base64_body, shown_body, shown_headers
from services.relay.protocol.shown_options import shown_options
from services.relay.protocol.views import (
    AttemptView,
    DeadLetterView,
    EventView,
    FlowView,
    MessageView,
    QueueView,
    ScheduleView,
    TopicView,
)
from services.relay.protocol.waiting import timetable, why_waiting

Json = dict[str, Any]


def published_object(message_id: str, *, deduplicated: bool = False, url: str | None = None) -> Json:
    """The answer to publish; `url` for each message of a URL group."""
    return present({"messageId": message_id, "deduplicated": deduplicated or None, "url": url})


def message_object(message: MessageView, now: datetime) -> Json:
    """`GET /v2/messages/{id}`."""
    waiting = why_waiting(message, now)
    plan = timetable(message, now)
    return message_facts(message) | present(
        {
            "state": message.state,
            "retried": message.retried,
            "nextDeliveryTime": _moment(message.due_at if message.state == "waiting" else None),
            "waiting": None
            if waiting is None
            else {"reason": waiting.reason, "until": _moment(waiting.until), "detail": waiting.detail},
            "attempts": [_attempt(attempt) for attempt in message.attempts],
            "plan": [{"number": number, "notBefore": milliseconds(moment)} for number, moment in plan],
        }
    )


def message_facts(message: MessageView) -> Json:
    """The fields that a message and a dead letter have in common."""
    return present(
        {
            "messageId": message.id,
            "url": message.url,
            "topicName": message.topic,
            "endpointName": message.endpoint,
            "method": message.method,
            "header": shown_headers(message.headers, message.options.redact),
            **shown_body(message.body, message.options.redact),
            "maxRetries": message.retries_max,
            "notBefore": milliseconds(message.not_before),
            "createdAt": milliseconds(message.created_at),
            "queueName": message.queue,
            "scheduleId": message.schedule_id,
            "callerIP": message.caller_ip,
            **_labels(message.labels),
            **shown_options(message.options),
        }
    )


def dead_letter_object(letter: DeadLetterView) -> Json:
    """`GET /v2/dlq/{dlqId}`, and an item of the list."""
    return message_facts(letter.message) | {
        "dlqId": letter.id,
        "responseStatus": letter.response_status,
        "responseHeader": {name: list(values) for name, values in letter.response_headers.items()},
        **shown_body(letter.response_body, name="responseBody"),
    }


def event_object(event: EventView, spelling: Literal["events", "logs"] = "events") -> Json:
    """An item of `GET /v2/events` or `/v2/logs`, which differ in the spelling of `CANCELED`."""
    response_headers = (
        None if event.response_headers is None else {k: list(v) for k, v in event.response_headers.items()}
    )
    return present(
        {
            "time": milliseconds(event.time),
            "messageId": event.message_id,
            "state": "CANCELLED" if event.state == "CANCELED" and spelling == "logs" else event.state,
            "url": event.url,
            "method": event.method,
            "header": None if event.headers is None else shown_headers(event.headers, event.options.redact),
            "body": base64_body(event.body, event.options.redact) if event.body else None,
            "error": event.error,
            "nextDeliveryTime": _moment(event.next_delivery_at),
            "topicName": event.topic,
            "endpointName": event.endpoint,
            "scheduleId": event.schedule_id,
            "queueName": event.queue,
            "callerIP": event.caller_ip or None,
            "responseStatus": event.response_status,
            "responseBody": base64_body(event.response_body) if event.response_body else None,
            "responseHeader": response_headers,
            "responseHeaders": response_headers,
            "timeout": event.timeout_ms,
            "maxRetries": event.retries_max,
            "retryDelayExpr": event.options.retry_delay,
            **_labels(event.labels),
            "flowControlKey": event.flow_key,
            **shown_options(event.options, callback_headers="Headers"),
        }
    )


def schedule_object(schedule: ScheduleView) -> Json:
    """`GET /v2/schedules/{id}`, and an item of the list. Delay and timeout are in seconds."""
    asked = draft("https://schedule.invalid", schedule.options, schedule.body, now_seconds=0.0)
    return present(
        {
            "scheduleId": schedule.id,
            "cron": schedule.cron,
            "destination": schedule.destination,
            "createdAt": milliseconds(schedule.created_at),
            "method": asked.method,
            "header": shown_headers(asked.headers, asked.options.redact),
            **shown_body(schedule.body, asked.options.redact),
            "retries": asked.retries_max,
            "delay": _number(asked.delay_seconds) or None,
            "timeout": _number(asked.timeout_ms / 1000) if "upstash-timeout" in schedule.options else None,
            "queueName": schedule.queue,
            "callerIP": schedule.caller_ip,
            "isPaused": schedule.paused,
            **shown_options(asked.options),
            **_labels(asked.labels),
            "lastScheduleTime": _moment(schedule.last_at),
            "nextScheduleTime": _moment(schedule.next_at),
            "lastScheduleStates": dict(schedule.last_states) or None,
            "error": schedule.error,
        }
    )


def flow_object(flow: FlowView) -> Json:
    """`GET /v2/flowControl/{key}`. A missing limit is 0, as the clients require numbers."""
    return present(
        {
            "flowControlKey": flow.key,
            "waitListSize": flow.waiting,
            "parallelismMax": flow.parallelism_max or 0,
            "parallelismCount": flow.parallelism_count,
            "rateMax": flow.rate_max or 0,
            "rateCount": flow.rate_count,
            "ratePeriod": flow.period_seconds,
            "ratePeriodStart": 0 if flow.period_start is None else int(flow.period_start.timestamp()),
            "isPaused": flow.paused,
            "isPinnedParallelism": flow.pinned_parallelism,
            "isPinnedRate": flow.pinned_rate,
            "isPinnedCooling": flow.pinned_cooling,
            "cooling": flow.cooling,
            "coolingUntil": _moment(flow.cooling_until),
        }
    )


def parallelism_object(greatest: int, count: int) -> Json:
    """`GET /v2/globalParallelism`."""
    return {"parallelismMax": greatest, "parallelismCount": count}


def queue_object(queue: QueueView) -> Json:
    """`GET /v2/queues/{name}`, and an item of the list."""
    return {
        "name": queue.name,
        "createdAt": milliseconds(queue.created_at),
        "updatedAt": milliseconds(queue.updated_at),
        "parallelism": queue.parallelism,
        "paused": queue.paused,
        "lag": queue.lag,
    }


def topic_object(topic: TopicView) -> Json:
    """`GET /v2/topics/{name}`, and an item of the list."""
    return present(
        {
            "name": topic.name,
            "createdAt": milliseconds(topic.created_at),
            "updatedAt": milliseconds(topic.updated_at),
            "endpoints": [present({"name": endpoint.name, "url": endpoint.url}) for endpoint in topic.endpoints],
            "headers": shown_headers(topic.headers) or None,
        }
    )


def present(content: Mapping[str, Any]) -> Json:
    """Remove missing values: clients accept an absent key, but not always null."""
    return {name: value for name, value in content.items() if value is not None}


def _attempt(attempt: AttemptView) -> Json:
    return {
        "number": attempt.number,
        "startedAt": milliseconds(attempt.started_at),
        "endedAt": _moment(attempt.ended_at),
        "status": attempt.status,
        "outcome": attempt.outcome,
        "error": attempt.error,
        "nextRetryAt": _moment(attempt.next_retry_at),
    }


def _labels(labels: tuple[str, ...]) -> Json:
    return {"label": labels[0], "labels": list(labels)} if labels else {}


def _moment(moment: datetime | None) -> int | None:
    return None if moment is None else milliseconds(moment)


def _number(value: float) -> float:
    return int(value) if value == int(value) else value
