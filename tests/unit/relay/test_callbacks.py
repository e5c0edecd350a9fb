"""Callbacks: the report of an attempt to the sender."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from services.relay.message import INLINE_BYTES_MAX, Claimed, Draft, Encoded, Unencoded, Unstored
from services.relay.options import CallbackOptions, Options, Redaction
from services.relay.outcome.outcome import Answer, Delivered, Failed, Retry
from services.relay.protocol.callback import callbacks

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MESSAGE = Claimed(
    id="msg_1", kind="message", protocol=2, url="https://a.example", method="POST", body=b"asked", body_size=5,
    headers={"Authorization": "secret"}, retries_max=3, timeout_ms=1000, on_unknown="retry", caller_ip="1.2.3.4",
    created_at=NOW, not_before=NOW, retried=1, started_at=NOW, labels=("a", "b"), queue="q", flow_key="key", topic="g",
    endpoint="e", schedule_id="scd_1",
    options=Options(
        callback=CallbackOptions("https://c.example", headers={"X": "1"}),
        failure_callback=CallbackOptions("https://f.example", retries_max=7),
        redact=Redaction(body=True, all_headers=True),
    ),
)  # fmt: skip
ANSWER = Answer(503, (("A", "1"), ("A", "2")), b"busy")


def content_of(draft: Draft) -> Any:
    """The content of a callback that fits into a row."""
    assert isinstance(draft.body, bytes)
    return orjson.loads(draft.body)


def test_a_callback_has_the_request_and_the_answer_without_redaction() -> None:
    [draft] = callbacks(MESSAGE, ANSWER, Retry(5), ended_at=NOW + timedelta(seconds=1), dlq_id="1-0")
    content = content_of(draft)
    assert (draft.url, draft.kind, draft.labels, draft.retries_max) == ("https://c.example", "callback", ("a", "b"), 3)
    assert draft.headers == {"Content-Type": "application/json", "X": "1"}
    assert (base64.b64decode(content["body"]), base64.b64decode(content["sourceBody"])) == (b"busy", b"asked")
    assert (content["status"], content["header"], content["retried"]) == (503, {"A": ["1", "2"]}, 1)
    assert (content["topicName"], content["endpointName"], content["scheduleId"]) == ("g", "e", "scd_1")
    assert (content["flowControlKey"], content["label"], content["labels"]) == ("key", "a", ["a", "b"])
    assert (content["willRetry"], content["nextRetryAt"] - content["endedAt"]) == (True, 5000)
    assert not {"dlqId", "headers", "error"} & set(content)
    # Its address belongs to the sender, whatever the limits of the message's own address.
    public = replace(MESSAGE, options=replace(MESSAGE.options, public_only=True))
    assert not callbacks(public, ANSWER, Retry(5), ended_at=NOW, dlq_id="1")[0].options.public_only
    # Otherwise they would wait behind their own message, or count against its key.
    assert (draft.queue, draft.options.flow) == (None, None)


def test_a_callback_has_the_headers_that_were_sent_without_their_secrets() -> None:
    sent = {"X-Order": "7", "X-Inside": "i", "Authorization": "Bearer secret"}
    options = replace(MESSAGE.options, redact=Redaction(headers=frozenset({"x-inside"})))
    message = replace(MESSAGE, headers=sent, options=options)
    [draft] = callbacks(message, ANSWER, Retry(5), ended_at=NOW, dlq_id="1-0")
    told = content_of(draft)["sourceHeader"]
    assert told == {
        "X-Order": ["7"],
        "X-Inside": [f"REDACTED:{hashlib.sha256(b'i').hexdigest()}"],
        "Authorization": [f"REDACTED:{hashlib.sha256(b'Bearer secret').hexdigest()}"],
    }


def test_a_failure_has_both_callbacks_with_the_id_of_the_dead_letter() -> None:
    first, failure = callbacks(MESSAGE, ANSWER, Failed(), ended_at=NOW, dlq_id="1-0")
    assert (first.kind, failure.kind, failure.retries_max) == ("callback", "failure_callback", 7)
    assert content_of(failure)["dlqId"] == "1-0"
    assert "dlqId" not in content_of(first)


def test_fields_without_a_value_are_absent_and_the_first_version_has_headers() -> None:
    bare = replace(MESSAGE, protocol=1, labels=(), topic=None, endpoint=None, schedule_id=None, flow_key=None)
    [draft] = callbacks(bare, ANSWER, Delivered(), ended_at=NOW, dlq_id="1-0")
    content = content_of(draft)
    assert content["headers"] == content["header"]
    assert not {"topicName", "endpointName", "scheduleId", "flowControlKey", "label", "labels"} & set(content)


def test_an_answers_headers_have_gos_canonical_names_whatever_the_destination_wrote() -> None:
    answer = Answer(200, (("content-type", "text/plain"), ("x-a", "1"), ("X-A", "2"), ("ETag", "e")), b"")
    [draft] = callbacks(replace(MESSAGE, protocol=1), answer, Delivered(), ended_at=NOW, dlq_id="1-0")
    content = content_of(draft)
    assert content["header"] == {"Content-Type": ["text/plain"], "X-A": ["1", "2"], "Etag": ["e"]}
    assert content["headers"] == content["header"]


def joined(draft: Draft) -> Any:
    """The content of a callback that is to be composed. None of its parts is stored yet."""
    assert isinstance(draft.body, Unstored)
    parts = [base64.b64encode(p.content) if isinstance(p, Unencoded) else p for p in draft.body.pieces]
    return orjson.loads(b"".join(part for part in parts if isinstance(part, bytes)))


@pytest.mark.parametrize(
    ("asked", "answered"),
    [(b"", b"x" * INLINE_BYTES_MAX), (b"x" * INLINE_BYTES_MAX, b""), (b"x" * 30_000, b"y" * 30_000)],
)
def test_a_callback_that_is_too_large_for_a_row_is_to_be_stored(asked: bytes, answered: bytes) -> None:
    message = replace(MESSAGE, body=asked, body_size=len(asked))
    callback, failure = callbacks(message, Answer(500, (), answered), Failed(), ended_at=NOW, dlq_id="1-0")
    for draft in (callback, failure):
        content = joined(draft)
        assert (base64.b64decode(content["body"]), base64.b64decode(content["sourceBody"])) == (answered, asked)
        assert content["status"] == 500
    assert joined(failure)["dlqId"] == "1-0"


def test_the_largest_callback_that_fits_into_a_row_is_in_one_piece() -> None:
    [empty] = callbacks(MESSAGE, Answer(200, (), b""), Delivered(), ended_at=NOW, dlq_id="")
    room = (INLINE_BYTES_MAX - empty.inline_bytes) // 4 * 3
    for size, kind in ((room, bytes), (room + 3, Unstored)):
        [draft] = callbacks(MESSAGE, Answer(200, (), b"x" * size), Delivered(), ended_at=NOW, dlq_id="")
        assert isinstance(draft.body, kind)


def test_many_headers_make_a_callback_too_large_as_well() -> None:
    headers = tuple((f"X-{n}", "v" * 1000) for n in range(70))
    [draft] = callbacks(MESSAGE, Answer(200, headers, b"x"), Delivered(), ended_at=NOW, dlq_id="")
    assert len(joined(draft)["header"]) == 70


def test_stored_bodies_and_bodies_in_memory_are_composed_into_one_callback() -> None:
    message = replace(MESSAGE, body=b"", body_key="body_1", body_size=100_000)
    [draft] = callbacks(message, Answer(200, (), b"small"), Delivered(), ended_at=NOW, dlq_id="")
    assert isinstance(draft.body, Unstored)
    assert Encoded("body_1", 100_000) in draft.body.pieces
    assert Unencoded(b"small") in draft.body.pieces
