"""`client.log`: the events of messages, newest first, by filter and by page."""

from __future__ import annotations

import base64
import time

import pytest
from qstash import QStash
from qstash.log import Log, LogFilter, LogState

from tests.destination import Destination, Reply
from tests.integration.sdk.seen import buried, delivered, sent, states
from tests.wait import until


def test_a_delivery_is_logged_from_its_creation_on(client: QStash, site: Destination) -> None:
    message_id = sent(client.message.publish(url=site.url, body="text"))
    delivered(client, message_id)
    found = states(client, message_id)
    assert found[0] is LogState.CREATED
    assert found[-1] is LogState.DELIVERED
    assert [found.count(state) for state in (LogState.CREATED, LogState.ACTIVE, LogState.DELIVERED)] == [1, 1, 1]
    rows = client.log.list(filter={"message_id": message_id}).logs
    assert [row.time for row in rows] == sorted((row.time for row in rows), reverse=True)
    assert {(row.message_id, row.url) for row in rows} == {(message_id, site.url)}
    assert rows[0].time == pytest.approx(time.time() * 1000, abs=60_000)


def test_a_failure_is_logged_with_the_answer(client: QStash, site: Destination) -> None:
    site.answer = lambda _: Reply(503, b"down", {"X-Answer": "yes"})
    message_id = sent(client.message.publish(url=site.url, retries=1, retry_delay="10"))
    buried(client, message_id)
    found = states(client, message_id)
    assert (found[0], found[-1]) == (LogState.CREATED, LogState.FAILED)
    assert found.count(LogState.ACTIVE) == 2
    assert {LogState.ERROR, LogState.RETRY} & set(found)
    failure = client.log.list(filter={"message_id": message_id, "state": LogState.FAILED}).logs[0]
    assert failure.response_status == 503
    assert failure.response_body is not None
    assert base64.b64decode(failure.response_body) == b"down"
    assert failure.response_headers is not None
    assert failure.response_headers["X-Answer"] == ["yes"]


def test_a_waiting_retry_shows_its_time(client: QStash, site: Destination) -> None:
    message_id = sent(client.message.publish(url=f"{site.url}/404", retry_delay="600000"))

    def waiting() -> list[Log]:
        rows = client.log.list(filter={"message_id": message_id, "state": LogState.IN_PROGRESS}).logs
        return [row for row in rows if row.next_delivery_time is not None]

    row = until(waiting)[0]
    assert row.next_delivery_time == pytest.approx(time.time() * 1000 + 600_000, abs=60_000)
    assert row.state in {LogState.RETRY, LogState.ERROR}
    assert row.error


def test_a_cancellation_is_logged(client: QStash) -> None:
    message_id = sent(client.message.publish(url="https://example.com", delay="1h"))
    client.message.cancel(message_id)
    until(lambda: states(client, message_id)[-1:] == [LogState.CANCELED])
    [row] = client.log.list(filter={"message_id": message_id, "state": LogState.CANCELED}).logs
    assert row.message_id == message_id


def test_a_row_shows_the_options_of_its_message(client: QStash) -> None:
    message_id = sent(
        client.message.publish(
            url="https://example.com",
            body="text",
            method="PUT",
            headers={"test-header": "v", "Authorization": "Bearer secret"},
            callback_headers={"X": "v"},
            delay="1h",
            retries=5,
            retry_delay="1000 * retried",
            timeout=90,
            callback="https://example.com/callback",
            failure_callback="https://example.com/failure",
            label="mine",
            flow_control={"key": "flow-key", "parallelism": 3},
        )
    )
    [row] = client.log.list(filter={"message_id": message_id, "state": LogState.CREATED}).logs
    assert (row.method, row.max_retries, row.retry_delay_expression) == ("PUT", 5, "1000 * retried")
    assert row.timeout == 90_000
    assert (row.callback, row.failure_callback) == ("https://example.com/callback", "https://example.com/failure")
    assert row.label == "mine"
    assert row.body_base64 is not None
    assert base64.b64decode(row.body_base64) == b"text"
    assert row.headers is not None
    assert row.headers["Test-Header"] == ["v"]
    assert row.headers["Authorization"][0].startswith("REDACTED:")
    assert (row.callback_headers, row.failure_callback_headers) == ({"X": ["v"]}, None)
    assert row.flow_control is not None
    assert (row.flow_control.key, row.flow_control.parallelism) == ("flow-key", 3)


def test_every_filter_finds_its_rows_and_no_others(client: QStash, site: Destination) -> None:
    client.url_group.upsert_endpoints("group", [{"url": f"{site.url}/group"}])
    before_ms = int(time.time() * 1000) - 1000
    plain = sent(client.message.publish(url=f"{site.url}/plain", label="plain"))
    queued = sent(client.message.enqueue(queue="queue", url=f"{site.url}/queued"))
    [grouped] = client.message.publish(url_group="group")  # type: ignore[misc]
    everything = {plain, queued, grouped.message_id}
    for message_id in everything:
        delivered(client, message_id)
    after_ms = int(time.time() * 1000) + 1000
    expected: list[tuple[LogFilter, set[str]]] = [
        ({"message_id": plain}, {plain}),
        ({"message_ids": [plain, queued]}, {plain, queued}),
        ({"url": f"{site.url}/queued"}, {queued}),
        ({"url_group": "group"}, {grouped.message_id}),
        ({"queue": "queue"}, {queued}),
        ({"label": "plain"}, {plain}),
        ({"state": LogState.DELIVERED}, everything),
        ({"state": LogState.FAILED}, set()),
        ({"from_time": before_ms, "to_time": after_ms}, everything),
        ({"from_time": after_ms}, set()),
        ({"to_time": before_ms}, set()),
        ({"schedule_id": "unknown"}, set()),
        ({"queue": "queue", "label": "plain"}, set()),
    ]
    found = [{row.message_id for row in client.log.list(filter=wanted).logs} for wanted, _ in expected]
    assert found == [ids for _, ids in expected]


def test_pages_hold_every_row_once(client: QStash, site: Destination) -> None:
    for n in range(3):
        delivered(client, sent(client.message.publish(url=f"{site.url}/{n}x")))
    everything = client.log.list()
    assert not everything.cursor
    found: list[Log] = []
    cursor = None
    for _ in range(len(everything.logs) + 1):
        page = client.log.list(count=2, cursor=cursor)
        assert len(page.logs) <= 2
        found += page.logs
        cursor = page.cursor
        if not cursor:
            break
    assert not cursor
    assert found == everything.logs
