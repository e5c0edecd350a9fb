"""The protocol's JSON objects, read by the vendor's own client where it has a reader."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from qstash.dlq import parse_dlq_message_response
from qstash.flow_control_api import parse_flow_control_info
from qstash.log import LogState, parse_logs_response
from qstash.message import FlowControlProperties, parse_message_response
from qstash.queue import parse_queue_response
from qstash.schedule import ScheduleState, parse_schedule_response
from qstash.url_group import parse_url_group_response

from services.relay.options import CallbackOptions, FlowControl, Options, Redaction
from services.relay.protocol.answers import (
    dead_letter_object,
    event_object,
    flow_object,
    message_object,
    published_object,
    queue_object,
    schedule_object,
    topic_object,
)
from services.relay.protocol.answers_v1 import (
    endpoint_url_v1,
    message_object_v1,
    task_objects_v1,
    topic_name_v1,
    topic_object_v1,
)
from services.relay.protocol.views import (
    AttemptView,
    DeadLetterView,
    EndpointView,
    EventView,
    FlowView,
    MessageView,
    QueueView,
    ScheduleView,
    TopicView,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MS = 1_767_225_600_000
PLAIN = MessageView(
    id="msg_1", url="https://a.example", method="POST", headers={"Test-Header": "v"}, body=b'{"a":1}', retries_max=3,
    created_at=NOW, not_before=NOW, state="waiting", due_at=NOW,
)  # fmt: skip
FULL = replace(
    PLAIN,
    headers={"Test-Header": "v", "Authorization": "Bearer secret"},
    labels=("a", "b"),
    queue="q",
    options=Options(
        retry_delay="1000 * (1 + retried)",
        callback=CallbackOptions("https://c.example", headers={"X": "1", "X-Api-Key": "secret"}),
        failure_callback=CallbackOptions("https://f.example"),
        flow=FlowControl("key", None, 23, 5403),
    ),
    topic="group",
    endpoint="first",
    schedule_id="scd_1",
    caller_ip="1.2.3.4",
)


def sha(text: str) -> str:
    return f"REDACTED:{hashlib.sha256(text.encode()).hexdigest()}"


def plain_json(content: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(content))
    return read


def test_a_message_is_readable_by_the_client() -> None:
    message = parse_message_response(plain_json(message_object(FULL, NOW)))
    assert (message.message_id, message.url, message.method, message.body) == ("msg_1", PLAIN.url, "POST", '{"a":1}')
    assert (message.max_retries, message.created_at, message.not_before) == (3, MS, MS)
    assert (message.url_group, message.endpoint, message.queue) == ("group", "first", "q")
    assert (message.callback, message.failure_callback) == ("https://c.example", "https://f.example")
    assert message.callback_headers == {"X": ["1"], "X-Api-Key": [sha("secret")]}
    assert message.flow_control == FlowControlProperties("key", None, 23, 5403)
    assert (message.label, message.schedule_id, message.caller_ip) == ("a", "scd_1", "1.2.3.4")
    assert message.retry_delay_expression == "1000 * (1 + retried)"
    assert message.headers == {"Test-Header": ["v"], "Authorization": [sha("Bearer secret")]}


def test_fields_without_a_value_are_absent() -> None:
    content = message_object(PLAIN, NOW)
    assert None not in content.values()
    assert not {"label", "labels", "flowControlKey", "period", "rate", "callback", "queueName", "bodyBase64"} & set(
        content
    )
    assert "body" not in message_object(replace(PLAIN, body=b""), NOW)


def test_a_body_that_is_not_text_is_in_base64() -> None:
    content = message_object(replace(PLAIN, body=b"\xff\x00"), NOW)
    assert base64.b64decode(content["bodyBase64"]) == b"\xff\x00"
    assert "body" not in content


@pytest.mark.parametrize(
    ("redact", "body", "header"),
    [
        (Redaction(), '{"a":1}', "v"),
        (Redaction(body=True), sha('{"a":1}'), "v"),
        (Redaction(all_headers=True), '{"a":1}', sha("v")),
        (Redaction(headers=frozenset({"test-header"})), '{"a":1}', sha("v")),
        (Redaction(headers=frozenset({"other"})), '{"a":1}', "v"),
    ],
)
def test_redaction(redact: Redaction, body: str, header: str) -> None:
    content = message_object(replace(PLAIN, options=Options(redact=redact)), NOW)
    assert (content["body"], content["header"]["Test-Header"]) == (body, [header])


@pytest.mark.parametrize("redact", [Redaction(all_headers=True), Redaction(headers=frozenset({"x"}))])
def test_headers_of_callbacks_are_redacted_like_the_messages_own(redact: Redaction) -> None:
    hidden = {"X": [sha("1")], "X-Api-Key": [sha("secret")]}
    options = replace(FULL.options, redact=redact)
    assert message_object(replace(FULL, options=options), NOW)["callbackHeader"] == hidden
    event = EventView(NOW, "msg_1", "ACTIVE", "https://a.example", options=options)
    assert event_object(event)["callbackHeaders"] == hidden


def test_a_message_shows_its_attempts_and_the_times_of_those_to_come() -> None:
    attempt = AttemptView(0, NOW, NOW + timedelta(seconds=2), 500, "retry", None, NOW + timedelta(seconds=5))
    waiting = replace(FULL, retried=1, due_at=NOW + timedelta(seconds=5), attempts=(attempt,))
    content = message_object(waiting, NOW)
    assert (content["state"], content["retried"], content["nextDeliveryTime"]) == ("waiting", 1, MS + 5000)
    assert (content["waiting"]["reason"], content["waiting"]["until"]) == ("retry", MS + 5000)
    assert content["attempts"] == [
        {"number": 0, "startedAt": MS, "endedAt": MS + 2000, "status": 500, "outcome": "retry", "error": None,
         "nextRetryAt": MS + 5000}
    ]  # fmt: skip
    assert content["plan"] == [
        {"number": 1, "notBefore": MS + 5000},
        {"number": 2, "notBefore": MS + 7000},
        {"number": 3, "notBefore": MS + 10_000},
    ]


def test_a_dead_letter_is_readable_by_the_client() -> None:
    letter = DeadLetterView("1-0", FULL, 404, {"Content-Type": ["text/plain"]}, b"404 Not Found")
    read = parse_dlq_message_response(plain_json(dead_letter_object(letter)))
    assert (read.dlq_id, read.response_status, read.response_body) == ("1-0", 404, "404 Not Found")
    assert read.response_headers == {"Content-Type": ["text/plain"]}
    assert (read.message_id, read.label, read.retry_delay_expression) == ("msg_1", "a", "1000 * (1 + retried)")
    assert read.flow_control == FlowControlProperties("key", None, 23, 5403)
    assert dead_letter_object(replace(letter, response_body=b"\xff"))["responseBodyBase64"] == "/w=="


EVENT = EventView(
    NOW, "msg_1", "RETRY", "https://a.example", method="POST", headers={"A": "1", "Api-Key": "s"}, body=b"x",
    retries_max=3, timeout_ms=5000, labels=("a", "b"), queue="q", options=Options(
        retry_delay="10", callback=CallbackOptions("https://c.example", headers={"B": "2"}),
        flow=FlowControl("key", 5, None),
    ), topic="g", endpoint="e", schedule_id="s",
    error="down", next_delivery_at=NOW + timedelta(seconds=1), response_status=503,
    response_headers={"Retry-After": ["1"]}, response_body=b"busy",
)  # fmt: skip


def test_an_event_is_readable_by_the_client() -> None:
    [log] = parse_logs_response([plain_json(event_object(EVENT))])
    assert (log.time, log.message_id, log.state, log.url) == (MS, "msg_1", LogState.RETRY, "https://a.example")
    assert (log.error, log.next_delivery_time, log.response_status) == ("down", MS + 1000, 503)
    assert (log.url_group, log.endpoint, log.queue, log.schedule_id, log.label) == ("g", "e", "q", "s", "a")
    assert (log.body_base64, log.response_body) == ("eA==", base64.b64encode(b"busy").decode())
    assert (log.headers, log.response_headers) == ({"A": ["1"], "Api-Key": [sha("s")]}, {"Retry-After": ["1"]})
    assert (log.callback, log.callback_headers, log.timeout) == ("https://c.example", {"B": ["2"]}, 5000)
    assert (log.max_retries, log.retry_delay_expression) == (3, "10")
    assert log.flow_control == FlowControlProperties("key", 5, None, 1)


def test_events_have_both_spellings_in_which_the_vendors_sources_differ() -> None:
    content = event_object(EVENT)
    assert content["retryDelayExpr"] == content["retryDelayExpression"]
    assert content["responseHeader"] == content["responseHeaders"]
    cancelled = EventView(NOW, "msg_1", "CANCELED", "https://a.example")
    assert event_object(cancelled)["state"] == "CANCELED"
    assert event_object(cancelled, "logs")["state"] == "CANCELLED"
    assert event_object(replace(EVENT, options=Options(redact=Redaction(body=True))))["body"] == sha("x")


SCHEDULE = ScheduleView(
    "scd_1", "*/10 * * * *", "https://a.example/",
    {"upstash-delay": "10s", "upstash-retries": "5", "upstash-method": "GET", "content-type": "application/json",
     "upstash-forward-test-header": "v", "upstash-callback": "https://c.example", "upstash-label": "a,b",
     "upstash-timeout": "90s", "upstash-flow-control-key": "key", "upstash-flow-control-value": "rate=1"},
    b'{"a":1}', NOW, queue="q", paused=True, caller_ip="1.2.3.4", last_at=NOW, next_at=NOW + timedelta(minutes=10),
    last_states={"msg_1": "SUCCESS"},
)  # fmt: skip


def test_a_schedule_is_readable_by_the_client() -> None:
    schedule = parse_schedule_response(plain_json(schedule_object(SCHEDULE)))
    assert (schedule.schedule_id, schedule.cron, schedule.destination) == (
        "scd_1",
        "*/10 * * * *",
        "https://a.example/",
    )
    assert (schedule.method, schedule.retries, schedule.delay, schedule.timeout) == ("GET", 5, 10, 90)
    assert schedule.headers == {"Content-Type": ["application/json"], "Test-Header": ["v"]}
    assert (schedule.body, schedule.callback, schedule.queue) == ('{"a":1}', "https://c.example", "q")
    assert (schedule.paused, schedule.label, schedule.caller_ip) == (True, "a", "1.2.3.4")
    assert (schedule.last_schedule_time, schedule.next_schedule_time) == (MS, MS + 600_000)
    assert schedule.last_schedule_states == {"msg_1": ScheduleState.SUCCESS}
    assert schedule.flow_control == FlowControlProperties("key", None, 1, 1)


def test_a_bare_schedule() -> None:
    content = schedule_object(ScheduleView("scd_1", "* * * * *", "group", {}, b"", NOW))
    assert (content["isPaused"], content["retries"], content["method"]) == (False, 3, "POST")
    assert not {"body", "delay", "timeout", "error", "lastScheduleTime"} & set(content)


def test_a_flow_control_key_is_readable_by_the_client() -> None:
    flow = FlowView("key", 7, 5, 4, None, 0, 60, NOW, paused=True, pinned_parallelism=True, cooling_until=NOW)
    info = parse_flow_control_info(plain_json(flow_object(flow)))
    assert (info.key, info.wait_list_size, info.parallelism_max, info.parallelism_count) == ("key", 7, 5, 4)
    assert (info.rate_max, info.rate_count, info.rate_period, info.rate_period_start) == (0, 0, 60, MS // 1000)
    assert (info.is_paused, info.is_pinned_parallelism, info.is_pinned_rate) == (True, True, False)
    assert flow_object(flow)["coolingUntil"] == MS


def test_a_queue_and_a_group_are_readable_by_the_client() -> None:
    queue = parse_queue_response(plain_json(queue_object(QueueView("q", NOW, NOW, 2, paused=True, lag=3))))
    assert (queue.name, queue.parallelism, queue.paused, queue.lag, queue.created_at) == ("q", 2, True, 3, MS)
    topic = TopicView("g", NOW, NOW, (EndpointView("https://a.example", "first"), EndpointView("https://b.example")))
    group = parse_url_group_response(plain_json(topic_object(topic)))
    assert [(endpoint.name, endpoint.url) for endpoint in group.endpoints] == [
        ("first", "https://a.example"),
        (None, "https://b.example"),
    ]


def test_published() -> None:
    assert published_object("msg_1") == {"messageId": "msg_1"}
    assert published_object("msg_1", deduplicated=True, url="https://a.example") == {
        "messageId": "msg_1", "deduplicated": True, "url": "https://a.example",
    }  # fmt: skip


def test_the_first_version_has_base64_bodies_ids_and_both_header_names() -> None:
    content = message_object_v1(FULL, NOW)
    assert base64.b64decode(content["body"]) == b'{"a":1}'
    assert content["header"] == content["headers"]
    assert (content["destinationType"], message_object_v1(PLAIN, NOW)["destinationType"]) == ("topic", "url")
    topic = TopicView("group", NOW, NOW, (EndpointView(FULL.url),))
    shown = topic_object_v1(topic)
    assert content["topicId"] == shown["topicId"]
    assert topic_name_v1(shown["topicId"]) == topic_name_v1("group") == "group"
    assert content["endpointId"] == shown["endpoints"][0]["endpointId"]
    assert endpoint_url_v1(content["endpointId"], [topic]) == ("group", FULL.url)
    assert endpoint_url_v1("endpoint_0", [topic]) is None
    [task] = task_objects_v1(FULL)["tasks"]
    assert (task["messageId"], task["state"], task["maxRetry"]) == ("msg_1", "created", 3)
