"""The JSON objects of the first version of the protocol, withdrawn by the vendor in December 2023. Pure.

Sources: the vendor's archived documentation, as far as it is still available (bodies in base64, `header` and later
`headers`, ids of topics and endpoints), and the vendor's Terraform provider (schedules, topics
and endpoints). The rest is as in the second version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from services.relay.protocol.address import NAME
from services.relay.protocol.answers import message_object, present, schedule_object
from services.relay.protocol.callback import milliseconds
from services.relay.protocol.redaction import base64_body
from services.relay.protocol.views import MessageView, ScheduleView, TopicView

Json = dict[str, Any]

_TASK_STATES = {"waiting": "created", "active": "active", "delivered": "delivered", "failed": "failed"}


def message_object_v1(message: MessageView, now: datetime) -> Json:
    """`GET /v1/messages/{id}`."""
    content = message_object(message, now)
    for name in ("body", "bodyBase64", "topicName", "endpointName"):
        content.pop(name, None)
    return content | present(
        {
            "headers": content["header"],
            "body": base64_body(message.body, message.options.redact) if message.body else None,
            "destinationType": "url" if message.topic is None else "topic",
            "topicId": _topic_id(message.topic),
            "topicName": message.topic,
            "endpointId": None if message.topic is None else _endpoint_id(message.topic, message.url),
        }
    )


def task_objects_v1(message: MessageView) -> Json:
    """`GET /v1/messages/{id}/tasks`. A message has one task here, with the same id."""
    ended = message.attempts[-1].ended_at if message.attempts and message.state in {"delivered", "failed"} else None
    task = present(
        {
            "taskId": message.id,
            "messageId": message.id,
            "url": message.url,
            "topicId": _topic_id(message.topic),
            "state": _TASK_STATES.get(message.state, "canceled"),
            "retried": message.retried,
            "maxRetry": message.retries_max,
            "nextProcessAt": milliseconds(message.due_at) if message.state == "waiting" else None,
            "completedAt": None if ended is None else milliseconds(ended),
            "lastErr": next((a.error for a in reversed(message.attempts) if a.error is not None), None),
        }
    )
    return {"tasks": [task]}


def topic_object_v1(topic: TopicView) -> Json:
    """`GET /v1/topics/{name or id}`, and an item of the list."""
    return {
        "topicId": _topic_id(topic.name),
        "name": topic.name,
        "endpoints": [
            present(
                {
                    "endpointId": _endpoint_id(topic.name, endpoint.url),
                    "topicId": _topic_id(topic.name),
                    "name": endpoint.name,
                    "url": endpoint.url,
                }
            )
            for endpoint in topic.endpoints
        ],
    }


def topic_name_v1(name_or_id: str) -> str:
    """The topic's name, which its id is made of."""
    return name_or_id.removeprefix("topic_")


def endpoint_url_v1(endpoint_id: str, topics: Iterable[TopicView]) -> tuple[str, str] | None:
    """The topic's name and the URL that an endpoint's id identifies."""
    return next(
        ((t.name, e.url) for t in topics for e in t.endpoints if _endpoint_id(t.name, e.url) == endpoint_id), None
    )


def schedule_object_v1(schedule: ScheduleView) -> Json:
    """`GET /v1/schedules/{id}`, and an item of the list."""
    content = schedule_object(schedule)
    header: dict[str, list[str]] = content["header"]
    to_topic = NAME.fullmatch(schedule.destination) is not None
    topic = {"topicId": _topic_id(schedule.destination), "name": schedule.destination}
    return content | {
        "headers": header,
        "destination": {"type": "topic", "topic": topic} if to_topic else {"type": "url", "url": schedule.destination},
        "content": {
            "header": {name: ", ".join(values) for name, values in header.items()},
            "body": content.get("body", content.get("bodyBase64", "")),
        },
        "settings": {"retries": content["retries"], "notBefore": 0, "deadline": 0},
    }


def _topic_id(name: str | None) -> str | None:
    return None if name is None else f"topic_{name}"


def _endpoint_id(topic: str, url: str) -> str:
    return f"endpoint_{hashlib.sha256(f'{topic} {url}'.encode()).hexdigest()[:24]}"
