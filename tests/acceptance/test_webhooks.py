"""A submission's webhook, end to end: sent when the submission has ended, signed, repeated under one id, and stopped by
a 410.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import standardwebhooks

from tests.acceptance.stacks import Stack
from tests.destination import Destination, Received, Reply, destination
from tests.wait import until


def _submit(stack: Stack, receiver: Destination, path: str, **asked: Any) -> str:
    content = {
        "target": "demo-images",
        "input": {"prompt": "a bell", "x_provider": {"latency_seconds": 0.05} | asked},
        "webhook": _address(receiver) + path,
        "metadata": {"order": 7},
    }
    answer = stack.call("POST", "/v1/submissions", json=content)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _verified(stack: Stack, received: Received) -> dict[str, Any]:
    """The content, verified with the independent library, as a receiver does."""
    secret = stack.home.secrets["webhook_secret"]
    headers = {name.lower(): value for name, value in received.headers.items()}
    return dict(standardwebhooks.Webhook(secret).verify(received.body, headers))


def _id(received: Received) -> str:
    return {name.lower(): value for name, value in received.headers.items()}["webhook-id"]


def test_a_webhook_has_the_signed_completion_and_its_id(stack: Stack) -> None:
    with destination() as receiver:
        id_ = _submit(stack, receiver, "/hook")
        [received] = until(lambda: receiver.to("/hook"), 30) or []
        [event] = stack.completions({id_})[id_]
    content = _verified(stack, received)
    assert received.method == "POST"
    assert _id(received) == event["headers"]["ce_id"]
    assert content["type"] == event["headers"]["ce_type"] == "dev.tidings.submission.succeeded"
    assert content["data"]["submission_id"] == id_
    assert content["data"]["metadata"] == {"order": 7}
    assert content["data"]["output"] == event["output"]
    assert "authorization" not in {name.lower() for name in received.headers}
    forged = replace(received, body=received.body.replace(b"succeeded", b"cancelled"))
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        _verified(stack, forged)


def test_a_webhook_that_failed_is_repeated_with_the_same_id(stack: Stack) -> None:
    with destination() as receiver:
        receiver.answer = lambda _: Reply(500 if len(receiver.received) == 1 else 200)
        id_ = _submit(stack, receiver, "/again", faults=["400"])
        until(lambda: len(receiver.to("/again")) == 2, 60)
        [event] = stack.completions({id_})[id_]
        _settled(stack, receiver)
        first, second = receiver.to("/again")
    assert _id(first) == _id(second) == event["headers"]["ce_id"]
    assert first.body == second.body
    assert _verified(stack, second)["type"] == "dev.tidings.submission.failed"


def test_a_webhook_answered_410_is_not_sent_again(stack: Stack) -> None:
    with destination(lambda _: Reply(410)) as receiver:
        _submit(stack, receiver, "/gone")
        until(lambda: receiver.to("/gone"), 30)
        _settled(stack, receiver)
        assert len(receiver.to("/gone")) == 1


def _settled(stack: Stack, receiver: Destination) -> None:
    """Wait until the relay has no message for the receiver. What is not sent by then is never sent."""
    query = "SELECT count(*) FROM relay.messages WHERE url LIKE %s AND ended_at IS NULL"
    until(lambda: stack.count(query, _address(receiver) + "%") == 0, 60)


def _address(receiver: Destination) -> str:
    """The receiver's URL with the name that the stack's relay may call."""
    return receiver.url.replace("127.0.0.1", "localhost")
