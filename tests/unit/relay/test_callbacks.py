"""Callbacks: what a sender is told after an attempt."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson

from services.relay.message import CallbackOptions, Claimed, Redaction
from services.relay.wire.callback import callbacks
from services.relay.wire.outcome import Answer, Delivered, Failed, Retry

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MESSAGE = Claimed(
    id="msg_1", kind="message", protocol=2, url="https://a.example", method="POST", body=b"asked", body_size=5,
    headers={"Authorization": "secret"}, callback=CallbackOptions("https://c.example", headers={"X": "1"}),
    failure_callback=CallbackOptions("https://f.example", retries_max=7), retries_max=3, retry_delay=None,
    timeout_ms=1000, final_status=(), final_errors=(), error_field=None, on_unknown="retry", caller_ip="1.2.3.4",
    created_at=NOW, not_before=NOW, retried=1, started_at=NOW, labels=("a", "b"), queue="q", flow_key="key", topic="g",
    endpoint="e", schedule_id="scd_1", redact=Redaction(body=True, all_headers=True),
)  # fmt: skip
ANSWER = Answer(503, (("A", "1"), ("A", "2")), b"busy")


def test_a_callback_tells_what_was_asked_and_answered_without_redaction() -> None:
    [draft] = callbacks(MESSAGE, ANSWER, Retry(5), ended_at=NOW + timedelta(seconds=1), dlq_id="1-0")
    content = orjson.loads(draft.body)
    assert (draft.url, draft.kind, draft.labels, draft.retries_max) == ("https://c.example", "callback", ("a", "b"), 3)
    assert draft.headers == {"Content-Type": "application/json", "X": "1"}
    assert (base64.b64decode(content["body"]), base64.b64decode(content["sourceBody"])) == (b"busy", b"asked")
    assert (content["status"], content["header"], content["retried"]) == (503, {"A": ["1", "2"]}, 1)
    assert (content["topicName"], content["endpointName"], content["scheduleId"]) == ("g", "e", "scd_1")
    assert (content["flowControlKey"], content["label"], content["labels"]) == ("key", "a", ["a", "b"])
    assert (content["willRetry"], content["nextRetryAt"] - content["endedAt"]) == (True, 5000)
    assert not {"dlqId", "headers", "error"} & set(content)
    # They would wait behind the very message that they tell of, or count against its key.
    assert (draft.queue, draft.flow) == (None, None)


def test_a_callback_has_the_headers_that_were_sent_without_their_secrets() -> None:
    sent = {"X-Order": "7", "X-Inside": "i", "Authorization": "Bearer secret"}
    message = replace(MESSAGE, headers=sent, redact=Redaction(headers=frozenset({"x-inside"})))
    [draft] = callbacks(message, ANSWER, Retry(5), ended_at=NOW, dlq_id="1-0")
    told = orjson.loads(draft.body)["sourceHeader"]
    assert told == {
        "X-Order": ["7"],
        "X-Inside": [f"REDACTED:{hashlib.sha256(b'i').hexdigest()}"],
        "Authorization": [f"REDACTED:{hashlib.sha256(b'Bearer secret').hexdigest()}"],
    }


def test_a_failure_has_both_and_names_the_dead_letter() -> None:
    first, failure = callbacks(MESSAGE, ANSWER, Failed(), ended_at=NOW, dlq_id="1-0")
    assert (first.kind, failure.kind, failure.retries_max) == ("callback", "failure_callback", 7)
    assert orjson.loads(failure.body)["dlqId"] == "1-0"
    assert "dlqId" not in orjson.loads(first.body)


def test_what_a_message_has_not_is_absent_and_the_first_version_has_headers() -> None:
    bare = replace(MESSAGE, protocol=1, labels=(), topic=None, endpoint=None, schedule_id=None, flow_key=None)
    [draft] = callbacks(bare, ANSWER, Delivered(), ended_at=NOW, dlq_id="1-0")
    content = orjson.loads(draft.body)
    assert content["headers"] == content["header"]
    assert not {"topicName", "endpointName", "scheduleId", "flowControlKey", "label", "labels"} & set(content)


def test_an_answers_headers_have_the_names_that_go_writes_whatever_the_destination_wrote() -> None:
    answer = Answer(200, (("content-type", "text/plain"), ("x-a", "1"), ("X-A", "2"), ("ETag", "e")), b"")
    [draft] = callbacks(replace(MESSAGE, protocol=1), answer, Delivered(), ended_at=NOW, dlq_id="1-0")
    content = orjson.loads(draft.body)
    assert content["header"] == {"Content-Type": ["text/plain"], "X-A": ["1", "2"], "Etag": ["e"]}
    assert content["headers"] == content["header"]
