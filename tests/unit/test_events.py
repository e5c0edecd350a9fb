"""From Debezium's envelope to the completion event."""

from __future__ import annotations

import json

import pytest
import standardwebhooks

from services.dispatcher.message import webhook
from services.notifier.transform import DeadLetter, Event, transform
from tidings.contract.change import decode_result

ROW = {
    "submission_id": "01920000-0000-7000-8000-000000000001",
    "event_id": "01920000-0000-7000-8000-000000000002",
    "tenant": "default", "target": "demo-images", "channel": None, "webhook": "https://hooks.example/x",
    "metadata": '{"a": 1}', "traceparent": None, "outcome": "succeeded", "reason": None, "status_code": 200,
    "content_type": "application/json", "body_size": 2, "body_sha256": "ab", "output": '{"data": []}',
    "submitted_at": "2026-01-01T00:00:00.000000Z", "created_at": "2026-01-01T00:00:02.500000Z",
}  # fmt: skip


def envelope(op: str = "c", **changed: object) -> bytes:
    return json.dumps({"op": op, "after": ROW | changed}).encode()


@pytest.mark.parametrize("op", ["c", "r"])
def test_an_insert_and_its_snapshot_make_the_same_event(op: str) -> None:
    event, inserted = transform(envelope(op), "http://x"), transform(envelope(), "http://x")
    assert isinstance(event, Event)
    assert isinstance(inserted, Event)
    assert event.completion == inserted.completion
    headers = dict(event.completion.headers)
    assert headers["ce_type"] == b"dev.tidings.submission.succeeded"
    assert headers["ce_id"].decode() == ROW["event_id"]
    assert headers["ce_time"] == b"2026-01-01T00:00:02.500000Z"
    value = json.loads(event.completion.value)
    assert (value["output"], value["metadata"]) == ({"data": []}, {"a": 1})
    assert value["result"]["url"] == f"http://x/v1/submissions/{ROW['submission_id']}/result"
    assert "webhook" not in value


@pytest.mark.parametrize("value", [None, envelope("u"), envelope("d")])
def test_a_change_other_than_an_insert_makes_no_event(value: bytes | None) -> None:
    assert transform(value, "http://x") is None


@pytest.mark.parametrize("value", [b"\xff", b"[]", b'{"op":"c"}', b'{"op":"c","after":{}}', envelope(outcome="odd"),
                                   envelope(output="[" * 100_000), envelope(metadata="{")])  # fmt: skip
def test_an_undecodable_change_is_a_dead_letter_with_a_reason(value: bytes) -> None:
    letter = transform(value, "http://x")
    assert isinstance(letter, DeadLetter)
    assert letter.reason


def test_a_webhook_is_signed_as_standard_webhooks_says() -> None:
    import time  # noqa: PLC0415

    change = decode_result(envelope())
    assert change is not None
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    message = webhook(change, "http://x", secret, int(time.time()))
    prefix = "Upstash-Forward-"
    headers = {name.removeprefix(prefix): v for name, v in message.headers.items() if name.startswith(prefix)}
    content = standardwebhooks.Webhook(secret).verify(message.body, headers)
    assert content["data"]["submission_id"] == ROW["submission_id"]
