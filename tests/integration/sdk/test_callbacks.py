"""Callbacks with the client's options, verified with its `Receiver`."""

from __future__ import annotations

import base64
import json
from typing import Any

from qstash import QStash, Receiver

from tests.destination import Destination, Received, Reply
from tests.integration.relay.conftest import CURRENT_KEY, NEXT_KEY
from tests.integration.sdk.seen import buried, delivered, sent
from tests.wait import until


def content(received: Received) -> dict[str, Any]:
    """The callback's body, with a verified signature."""
    Receiver(CURRENT_KEY, NEXT_KEY).verify(signature=received.headers["Upstash-Signature"], body=received.body.decode())
    found = json.loads(received.body)
    assert isinstance(found, dict)
    return found


def test_the_answer_is_sent_in_the_callback(client: QStash, site: Destination) -> None:
    site.answer = lambda received: Reply(201, "größer".encode(), {"X-Answer": "yes"})
    message_id = sent(
        client.message.publish(
            url=f"{site.url}/work",
            body="question",
            method="PUT",
            callback=f"{site.url}/callback",
            failure_callback=f"{site.url}/failure",
            callback_headers={"Upstash-Callback-Forward-My-Header": "mine", "method": "PUT", "X-Plain": "v"},
        )
    )
    [received] = until(lambda: site.to("/callback"))
    found = content(received)
    assert (received.method, received.headers["My-Header"]) == ("PUT", "mine")
    assert (received.headers["X-Plain"], received.headers["Content-Type"]) == ("v", "application/json")
    assert (found["status"], found["retried"], found["maxRetries"]) == (201, 0, 3)
    assert base64.b64decode(found["body"]).decode() == "größer"
    assert base64.b64decode(found["sourceBody"]) == b"question"
    assert (found["sourceMessageId"], found["url"], found["method"]) == (message_id, f"{site.url}/work", "PUT")
    assert found["header"]["X-Answer"] == ["yes"]
    assert isinstance(found["createdAt"], int)
    assert isinstance(found["notBefore"], int)
    assert received.headers["Upstash-Message-Id"] != message_id
    delivered(client, message_id)
    assert site.to("/failure") == []


def test_every_attempt_has_a_callback_and_so_has_the_final_failure(client: QStash, site: Destination) -> None:
    message_id = sent(
        client.message.publish(
            url=f"{site.url}/404",
            retries=1,
            retry_delay="10",
            callback=f"{site.url}/callback",
            failure_callback=f"{site.url}/failure",
            failure_callback_headers={"Forward-My-Header": "mine"},
        )
    )
    [failed] = until(lambda: site.to("/failure"))
    until(lambda: len(site.to("/callback")) == 2)
    assert sorted(content(received)["retried"] for received in site.to("/callback")) == [0, 1]
    found = content(failed)
    assert (found["status"], found["retried"], found["maxRetries"]) == (404, 1, 1)
    assert base64.b64decode(found["body"]) == b"404 Not Found"
    assert failed.headers["My-Header"] == "mine"
    assert found["dlqId"] == buried(client, message_id).dlq_id


def test_a_callback_is_retried_by_its_own_options(client: QStash, site: Destination) -> None:
    statuses = iter([500, 500, 200])
    site.answer = lambda received: Reply(next(statuses) if received.path == "/callback" else 200)
    client.message.publish(
        url=f"{site.url}/work",
        retries=0,
        callback=f"{site.url}/callback",
        callback_headers={"retries": "2", "retry-delay": "10"},
    )
    until(lambda: len(site.to("/callback")) == 3)
    assert [received.headers["Upstash-Retried"] for received in site.to("/callback")] == ["0", "1", "2"]


def test_a_callback_that_fails_for_good_is_a_dead_letter(client: QStash, site: Destination) -> None:
    site.answer = lambda received: Reply(500 if received.path == "/callback" else 200)
    client.message.publish(url=f"{site.url}/work", retries=0, callback=f"{site.url}/callback")
    [letter] = until(lambda: client.dlq.list(filter={"url": f"{site.url}/callback"}).messages)
    assert letter.response_status == 500
