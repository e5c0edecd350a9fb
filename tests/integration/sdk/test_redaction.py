"""Redaction: answers show a hash, and the destination gets the value."""

from __future__ import annotations

import base64
import hashlib
import json

from qstash import QStash

from tests.destination import Destination
from tests.integration.sdk.seen import buried, delivered, sent
from tests.wait import until

SECRET = "the secret"
REDACTED = f"REDACTED:{hashlib.sha256(SECRET.encode()).hexdigest()}"


def test_a_redacted_body_is_hashed_in_all_answers_and_sent_to_the_destination(
    client: QStash, site: Destination
) -> None:
    message_id = sent(client.message.publish(url=f"{site.url}/404", body=SECRET, retries=0, redact={"body": True}))
    letter = buried(client, message_id)
    assert site.received[0].body == SECRET.encode()
    assert (client.message.get(message_id).body, letter.body) == (REDACTED, REDACTED)
    answers = [
        client.http.request(path=path, method="GET")
        for path in (f"/v2/messages/{message_id}", "/v2/events", "/v2/logs", "/v2/dlq")
    ]
    assert not any(form in json.dumps(answers) for form in (SECRET, "dGhlIHNlY3JldA"))


def test_a_callback_is_redacted_like_its_message(client: QStash, site: Destination) -> None:
    url = f"{site.url}/404?callback"
    client.message.publish(
        url=site.url, body=SECRET, callback=url, callback_headers={"retries": "0"}, redact={"body": True}
    )
    letter = buried(client, until(lambda: client.log.list(filter={"url": url}).logs)[0].message_id)
    assert base64.b64encode(SECRET.encode()) in site.to("/404")[0].body
    assert letter.body is not None
    assert letter.body.startswith("REDACTED:")
    shown = [row.body_base64 for row in client.log.list(filter={"url": url}).logs]
    assert shown
    assert all(body is None or body.startswith("REDACTED:") for body in shown)


def test_named_headers_are_redacted_and_others_are_not(client: QStash, site: Destination) -> None:
    headers = {"x-secret": SECRET, "plain": "seen"}
    message_id = sent(client.message.publish(url=site.url, headers=headers, redact={"header": ["X-Secret"]}))
    delivered(client, message_id)
    assert site.received[0].headers["X-Secret"] == SECRET
    found = client.message.get(message_id).headers
    assert found is not None
    assert (found["X-Secret"], found["Plain"]) == ([REDACTED], ["seen"])


def test_all_headers_are_redacted(client: QStash, site: Destination) -> None:
    message_id = sent(client.message.publish(url=site.url, headers={"a": "1", "b": "2"}, redact={"header": True}))
    delivered(client, message_id)
    assert (site.received[0].headers["A"], site.received[0].headers["B"]) == ("1", "2")
    found = client.message.get(message_id).headers
    assert found is not None
    assert all(value.startswith("REDACTED:") for values in found.values() for value in values)


def test_a_schedule_is_redacted_and_so_are_its_messages(client: QStash, site: Destination) -> None:
    schedule_id = client.schedule.create(
        cron="* * * * * *", destination=f"{site.url}/404", body=SECRET, retries=0, redact={"body": True}
    )
    assert client.schedule.get(schedule_id).body == REDACTED
    [letter, *_] = _letters(client, schedule_id)
    assert letter == REDACTED
    assert site.received[0].body == SECRET.encode()


def _letters(client: QStash, schedule_id: str) -> list[str | None]:
    return until(lambda: [letter.body for letter in client.dlq.list(filter={"schedule_id": schedule_id}).messages])
