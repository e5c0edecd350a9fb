"""The meaning of a callback: an attempt, an end, or both."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from services.api.callback import decide, read_callback
from services.api.models import JSON_DEPTH_MAX, depth, idempotency_key, parse_json
from services.api.problem import ProblemError
from tidings.contract.targets import Target

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TARGET = Target(name="t", url="https://t", retries=3, timeout_seconds=1)


def told(status: int = 200, body: bytes = b"{}", **fields: Any) -> tuple[Any, Any]:
    content = {"status": status, "body": base64.b64encode(body).decode(), "sourceMessageId": "m", "maxRetries": 3}
    return decide(*read_callback(orjson.dumps(content | fields)), TARGET, NOW)


def test_a_success_is_an_attempt_and_an_end() -> None:
    attempt, result = told(body=b'{"data":[]}', retried=1, header={"Content-Type": ["application/json"]})
    assert (attempt.number, attempt.error) == (2, None)
    assert (result.outcome, result.output, result.content_type) == ("succeeded", {"data": []}, "application/json")


@pytest.mark.parametrize("fields", [{"willRetry": True}, {"retried": 2}, {"willRetry": True, "retried": 3}])
def test_a_failure_that_is_retried_is_not_an_end(fields: dict[str, Any]) -> None:
    attempt, result = told(500, **fields)
    assert attempt.status_code == 500
    assert result is None


@pytest.mark.parametrize("fields", [{"willRetry": False}, {"retried": 3}, {"dlqId": "1-0", "startedAt": 1}])
def test_the_last_failure_is_an_end(fields: dict[str, Any]) -> None:
    _, result = told(500, **fields)
    assert result.outcome == "failed"


@pytest.mark.parametrize(
    ("status", "body"),
    [(400, b"{}"), (401, b""), (429, b'{"error":{"code":"insufficient_quota","message":"m"}}')],
)
def test_a_final_answer_is_an_end_even_if_the_relay_would_retry(status: int, body: bytes) -> None:
    _, result = told(status, body, willRetry=True)
    assert result.outcome == "failed"


def test_an_error_inside_a_success_is_a_failure() -> None:
    _, result = told(200, b'{"error":{"message":"overloaded"}}')
    assert (result.outcome, result.reason) == ("failed", "the provider answered 200: overloaded")


def test_no_answer_has_a_reason_and_no_body() -> None:
    _, result = told(0, b"", error="no answer within 5 s", willRetry=False)
    assert (result.reason, result.body, result.status_code) == ("no answer within 5 s", None, None)


def test_a_message_that_was_never_sent_has_no_attempt() -> None:
    attempt, result = told(0, b"", dlqId="not-sent", error="refused")
    assert attempt is None
    assert result.reason == "refused"


@pytest.mark.parametrize("body", [b'{"a":"\\u0000"}', b"x" * 20_000, b"not json", b"\xff"])
def test_an_answer_that_jsonb_cannot_hold_has_no_output_and_is_a_result(body: bytes) -> None:
    _, result = told(200, body)
    assert (result.output, result.body) == (None, body)


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b'{"status":"x","sourceMessageId":"m"}', b'{"status":200,"sourceMessageId":"m","body":"%"}'],
)
def test_malformed_callbacks_are_refused(raw: bytes) -> None:
    with pytest.raises(ProblemError) as raised:
        read_callback(raw)
    assert raised.value.status == 400


def test_json_is_read_within_limits() -> None:
    deep = b"[" * (JSON_DEPTH_MAX + 1) + b"]" * (JSON_DEPTH_MAX + 1)
    for body, content_type, status in (
        (deep, "application/json", 400),
        (b"{", "application/json", 400),
        (b"{}", "text/xml", 415),
    ):
        with pytest.raises(ProblemError) as raised:
            parse_json(body, content_type)
        assert raised.value.status == status
    assert depth([[{"a": []}]]) == 4


def test_an_idempotency_key_may_be_quoted() -> None:
    assert idempotency_key('"abc"') == idempotency_key("abc") == "abc"
    with pytest.raises(ProblemError):
        idempotency_key("")


@pytest.mark.parametrize("levels", [65, 300, 1000])
def test_an_answer_that_is_nested_too_deeply_has_no_output_and_is_a_result(levels: int) -> None:
    answer = b"[" * levels + b"]" * levels
    _, result = told(body=answer)
    assert (result.outcome, result.output, result.body) == ("succeeded", None, answer)


@pytest.mark.parametrize(
    "error", [b'{"message":"cut \\ud83d"}', b'"' + b"\\ud83d" + b'"', b'{"message":' + b"[" * 900 + b"]" * 900 + b"}",
              b'{"code":' + b"[" * 900 + b"]" * 900 + b"}"]
)  # fmt: skip
def test_any_error_of_a_provider_becomes_a_reason_that_can_be_stored(error: bytes) -> None:
    attempt, result = told(500, b'{"error":' + error + b"}", willRetry=False)
    for text in (attempt.error, result.reason):
        assert text.encode().startswith(b"the provider answered 500")
        assert len(text) <= 500


@pytest.mark.parametrize(
    "fields", [{"status": 50}, {"retried": 2**31 - 1}, {"sourceMessageId": "a\0"}, {"status": -1}, {"status": 1000}]
)
def test_a_value_that_no_row_can_hold_is_a_malformed_callback(fields: dict[str, Any]) -> None:
    with pytest.raises(ProblemError) as raised:
        told(**{"status": 200} | fields)
    assert raised.value.status == 400
    assert raised.value.faults
