"""`client.dlq`: dead letters are filtered, deleted and retried."""

from __future__ import annotations

import time
from typing import Any

import pytest
from qstash import QStash
from qstash.dlq import DlqFilter
from qstash.errors import QStashError
from qstash.log import LogState
from qstash.message import FlowControlProperties

from tests.destination import Destination, Reply
from tests.integration.sdk.seen import buried, delivered, sent, states
from tests.wait import until


def fail(client: QStash, url: str, **options: Any) -> str:
    """The id of a message that has become a dead letter."""
    message_id = sent(client.message.publish(url=url, retries=0, **options))
    buried(client, message_id)
    return message_id


def retry(client: QStash, path: str, **options: Any) -> Any:
    """The client has no method for this route: its transport sends the request of the documentation."""
    return client.http.request(path=f"/v2/dlq/retry{path}", method="POST", **options)


def test_a_dead_letter_holds_the_message_and_the_answer(client: QStash, site: Destination) -> None:
    site.answer = lambda _: Reply(404, b"404 Not Found", {"X-Answer": "yes"})
    message_id = fail(
        client,
        f"{site.url}/404",
        body="text",
        headers={"test-header": "v"},
        label="mine",
        retry_delay="2000 * retried",
        flow_control={"key": "flow-key", "parallelism": 10, "rate": 5, "period": "1d"},
    )
    listed = buried(client, message_id)
    got = client.dlq.get(listed.dlq_id)
    assert got == listed
    assert (got.message_id, got.url, got.method, got.body) == (message_id, f"{site.url}/404", "POST", "text")
    assert (got.response_status, got.response_body, got.response_body_base64) == (404, "404 Not Found", None)
    assert got.response_headers is not None
    assert got.response_headers["X-Answer"] == ["yes"]
    assert got.headers is not None
    assert got.headers["Test-Header"] == ["v"]
    assert (got.label, got.max_retries, got.retry_delay_expression) == ("mine", 0, "2000 * retried")
    assert got.flow_control == FlowControlProperties("flow-key", parallelism=10, rate=5, period=86_400)
    assert states(client, message_id)[-1] is LogState.FAILED


def test_an_answer_that_is_not_text_is_base64(client: QStash, site: Destination) -> None:
    site.answer = lambda _: Reply(500, b"\xff\xfe")
    letter = buried(client, sent(client.message.publish(url=site.url, retries=0)))
    assert not letter.response_body
    assert letter.response_body_base64 == "//4="


def test_deleting_one(client: QStash, site: Destination) -> None:
    letter = buried(client, fail(client, f"{site.url}/404"))
    client.dlq.delete(letter.dlq_id)
    assert client.dlq.list().messages == []
    with pytest.raises(QStashError, match="404"):
        client.dlq.get(letter.dlq_id)


def test_deleting_many_returns_their_number(client: QStash, site: Destination) -> None:
    for _ in range(5):
        client.message.publish(url=f"{site.url}/404", retries=0)
    letters = until(lambda: found if len(found := client.dlq.list().messages) == 5 else None)
    assert letters is not None
    ids = [letter.dlq_id for letter in letters]
    assert client.dlq.delete_many(ids[:4]) == 4
    assert client.dlq.delete_many(ids) == 1
    assert client.dlq.list().messages == []


def test_pages_hold_every_dead_letter_once(client: QStash, site: Destination) -> None:
    ids = {sent(client.message.publish(url=f"{site.url}/404", retries=0)) for _ in range(5)}
    until(lambda: len(client.dlq.list().messages) == 5)
    found: list[str] = []
    cursor = None
    for _ in range(6):
        page = client.dlq.list(count=2, cursor=cursor)
        found += [letter.message_id for letter in page.messages]
        assert len(page.messages) <= 2
        cursor = page.cursor
        if not cursor:
            break
    assert not cursor
    assert sorted(found) == sorted(ids)


def test_every_filter_finds_its_dead_letters_and_no_others(client: QStash, site: Destination) -> None:
    client.url_group.upsert_endpoints("group", [{"url": f"{site.url}/500"}])
    before_ms = int(time.time() * 1000) - 1000
    other = fail(client, f"{site.url}/404", label="other")
    [grouped] = client.message.publish(url_group="group", retries=0)  # type: ignore[misc]
    queued = sent(client.message.enqueue(queue="queue", url=f"{site.url}/501", retries=0))
    for message_id in (grouped.message_id, queued):
        buried(client, message_id)
    after_ms = int(time.time() * 1000) + 1000
    everything = {other, grouped.message_id, queued}
    expected: list[tuple[DlqFilter, set[str]]] = [
        ({"message_id": queued}, {queued}),
        ({"url": f"{site.url}/404"}, {other}),
        ({"url_group": "group"}, {grouped.message_id}),
        ({"queue": "queue"}, {queued}),
        ({"label": "other"}, {other}),
        ({"response_status": 500}, {grouped.message_id}),
        ({"caller_ip": "127.0.0.1"}, everything),
        ({"caller_ip": "192.0.2.1"}, set()),
        ({"from_time": before_ms, "to_time": after_ms}, everything),
        ({"from_time": after_ms}, set()),
        ({"to_time": before_ms}, set()),
        ({"schedule_id": "unknown"}, set()),
        ({"queue": "queue", "label": "other"}, set()),
    ]
    found = [{letter.message_id for letter in client.dlq.list(filter=wanted).messages} for wanted, _ in expected]
    assert found == [ids for _, ids in expected]


def test_a_dead_letter_of_a_schedule_is_found_by_it(client: QStash, site: Destination) -> None:
    schedule_id = client.schedule.create(cron="* * * * * *", destination=f"{site.url}/404", retries=0)
    letters = until(lambda: client.dlq.list(filter={"schedule_id": schedule_id}).messages)
    assert {letter.schedule_id for letter in letters} == {schedule_id}


def test_retrying_one_sends_it_again_with_changed_options(client: QStash, site: Destination) -> None:
    letter = buried(client, fail(client, f"{site.url}/404", body="text", headers={"a": "b"}))
    site.answer = lambda _: Reply()
    answer = retry(client, f"/{letter.dlq_id}", headers={"Upstash-Retries": "7"})
    assert answer["messageId"] != letter.message_id
    delivered(client, answer["messageId"])
    assert client.message.get(answer["messageId"]).max_retries == 7
    assert [(received.body, received.headers["A"]) for received in site.received] == [(b"text", "b")] * 2
    assert client.dlq.list().messages == []


def test_retrying_many_by_id_and_by_filter(client: QStash, site: Destination) -> None:
    ids = [buried(client, fail(client, f"{site.url}/404")).dlq_id for _ in range(2)]
    for _ in range(2):
        fail(client, f"{site.url}/404", label="again")
    site.answer = lambda _: Reply()
    by_id = retry(client, "", params={"dlqIds": ids})
    by_label = retry(client, "", params={"label": "again", "count": "10"})
    for answer in (by_id, by_label):
        assert len(answer["responses"]) == 2
        assert not answer.get("cursor")
        for item in answer["responses"]:
            delivered(client, item["messageId"])
    assert client.dlq.list().messages == []


def test_retrying_an_unknown_dead_letter_is_an_error(client: QStash) -> None:
    with pytest.raises(QStashError, match="404"):
        retry(client, "/1725323658779-0")
