"""`client.schedule`: creation with every option, change by id, pausing, and its messages."""

from __future__ import annotations

import time

import pytest
from qstash import QStash
from qstash.errors import QStashError
from qstash.log import LogState
from qstash.message import FlowControlProperties
from qstash.schedule import ScheduleState

from tests.destination import Destination
from tests.wait import until

NEVER = "1 1 1 1 1"  # the first of January, from the vendor's own tests
EVERY_SECOND = "* * * * * *"  # six fields, the first of seconds, are ours


def test_a_schedule_from_creation_to_deletion(client: QStash) -> None:
    schedule_id = client.schedule.create_json(cron=NEVER, destination="https://example.com", body={"key": "value"})
    found = client.schedule.get(schedule_id)
    assert (found.schedule_id, found.cron, found.destination) == (schedule_id, NEVER, "https://example.com")
    assert (found.body, found.method, found.retries, found.paused) == ('{"key": "value"}', "POST", 3, False)
    assert found.created_at == pytest.approx(time.time() * 1000, abs=60_000)
    assert found.next_schedule_time is not None
    assert found.next_schedule_time > found.created_at
    assert [schedule.schedule_id for schedule in client.schedule.list()] == [schedule_id]
    client.schedule.delete(schedule_id)
    assert client.schedule.list() == []
    with pytest.raises(QStashError, match="404"):
        client.schedule.get(schedule_id)


def test_get_shows_every_option(client: QStash) -> None:
    schedule_id = client.schedule.create(
        cron="*/10 * * * *",
        destination="https://example.com/work",
        body="text",
        content_type="text/plain",
        method="GET",
        headers={"test-header": "v", "Upstash-Forward-bypass-tunnel-reminder": "w"},
        callback="https://example.com/callback",
        failure_callback="https://example.com/failure",
        callback_headers={"Forward-Of": "callback"},
        failure_callback_headers={"Forward-Of": "failure"},
        retries=5,
        retry_delay="5000 * retried",
        delay=10,
        timeout="90s",
        schedule_id="my-schedule_1.0",
        queue="schedule-queue",
        flow_control={"key": "flow-key", "parallelism": 2},
        label="mine",
    )
    assert schedule_id == "my-schedule_1.0"
    found = client.schedule.get(schedule_id)
    assert (found.cron, found.destination, found.method) == ("*/10 * * * *", "https://example.com/work", "GET")
    assert found.headers == {
        "Bypass-Tunnel-Reminder": ["w"],
        "Content-Type": ["text/plain"],
        "Test-Header": ["v"],
    }
    assert (found.body, found.retries, found.retry_delay_expression) == ("text", 5, "5000 * retried")
    assert (found.callback, found.failure_callback) == ("https://example.com/callback", "https://example.com/failure")
    assert (found.callback_headers, found.failure_callback_headers) == ({"Of": ["callback"]}, {"Of": ["failure"]})
    assert (found.delay, found.queue, found.label) == (10, "schedule-queue", "mine")
    assert found.timeout is not None
    assert found.caller_ip == "127.0.0.1"
    assert found.flow_control == FlowControlProperties("flow-key", parallelism=2, rate=None, period=1)


def test_the_same_id_replaces_the_schedule(client: QStash) -> None:
    created = client.schedule.create(
        cron="*/5 * * * *", destination="https://first.example", body="b", schedule_id="same", retries=1
    )
    replaced = client.schedule.create(cron="*/7 * * * *", destination="https://second.example", schedule_id="same")
    assert created == replaced == "same"
    [found] = client.schedule.list()
    assert (found.destination, found.cron, found.body, found.retries) == (
        "https://second.example",
        "*/7 * * * *",
        None,
        3,
    )


def test_a_zone_is_part_of_the_cron(client: QStash) -> None:
    ids = [
        client.schedule.create(cron=f"{prefix}0 12 1 7 *", destination="https://example.com")
        for prefix in ("", "CRON_TZ=America/New_York ")
    ]
    utc, new_york = [client.schedule.get(schedule_id) for schedule_id in ids]
    assert new_york.cron == "CRON_TZ=America/New_York 0 12 1 7 *"
    assert utc.next_schedule_time is not None
    assert new_york.next_schedule_time is not None
    assert new_york.next_schedule_time - utc.next_schedule_time == 4 * 3_600_000


def test_a_schedule_sends_and_shows_the_state_of_its_message(client: QStash, site: Destination) -> None:
    schedule_id = client.schedule.create(
        cron=EVERY_SECOND, destination=f"{site.url}/work", body="text", headers={"a": "b"}, label="mine"
    )
    received = until(lambda: site.received)[0]
    assert (received.path, received.body, received.headers["A"]) == ("/work", b"text", "b")
    assert received.headers["Upstash-Schedule-Id"] == schedule_id
    message = client.message.get(received.headers["Upstash-Message-Id"])
    assert (message.schedule_id, message.label) == (schedule_id, "mine")

    def succeeded() -> bool:
        found = client.schedule.get(schedule_id)
        last = found.last_schedule_states or {}
        return found.last_schedule_time is not None and set(last.values()) == {ScheduleState.SUCCESS}

    until(succeeded)
    rows = client.log.list(filter={"schedule_id": schedule_id}).logs
    assert rows
    assert {row.schedule_id for row in rows} == {schedule_id}


def test_pausing_stops_and_resuming_starts_it(client: QStash, site: Destination) -> None:
    schedule_id = client.schedule.create(cron=EVERY_SECOND, destination=f"{site.url}/work")
    until(lambda: site.to("/work"))
    client.schedule.pause(schedule_id)
    client.schedule.pause(schedule_id)
    assert client.schedule.get(schedule_id).paused is True
    # Its earlier messages are still being sent: more than one when the machine is slow.
    until(lambda: _count(client, schedule_id, LogState.CREATED) == _count(client, schedule_id, LogState.DELIVERED))
    before = len(site.to("/work"))
    other = client.schedule.create(cron=EVERY_SECOND, destination=f"{site.url}/clock")
    until(lambda: len(site.to("/clock")) == 3)
    assert len(site.to("/work")) == before
    client.schedule.delete(other)
    client.schedule.resume(schedule_id)
    assert client.schedule.get(schedule_id).paused is False
    until(lambda: len(site.to("/work")) > before)


def _count(client: QStash, schedule_id: str, state: LogState) -> int:
    return len(client.log.list(filter={"schedule_id": schedule_id, "state": state}).logs)


def test_a_deleted_schedule_sends_no_more(client: QStash, site: Destination) -> None:
    schedule_id = client.schedule.create(cron=EVERY_SECOND, destination=f"{site.url}/work")
    until(lambda: site.to("/work"))
    client.schedule.delete(schedule_id)
    before = len(client.log.list(filter={"schedule_id": schedule_id, "state": LogState.CREATED}).logs)
    client.schedule.create(cron=EVERY_SECOND, destination=f"{site.url}/clock")
    until(lambda: len(site.to("/clock")) == 3)
    assert len(client.log.list(filter={"schedule_id": schedule_id, "state": LogState.CREATED}).logs) == before


def test_a_schedule_enqueues(client: QStash, site: Destination) -> None:
    client.queue.upsert("queue", paused=True)
    schedule_id = client.schedule.create(cron=EVERY_SECOND, destination=site.url, queue="queue")
    until(lambda: client.queue.get("queue").lag > 0)
    client.schedule.delete(schedule_id)
    assert site.received == []
    client.queue.resume("queue")
    until(lambda: site.received and client.queue.get("queue").lag == 0)


def test_a_schedule_sends_to_a_group(client: QStash, site: Destination) -> None:
    client.url_group.upsert_endpoints("group", [{"url": f"{site.url}/a"}, {"url": f"{site.url}/b"}])
    schedule_id = client.schedule.create(cron=EVERY_SECOND, destination="group", body="x")
    assert client.schedule.get(schedule_id).destination == "group"
    until(lambda: site.to("/a") and site.to("/b"))


@pytest.mark.parametrize("cron", ["", "* * *", "61 * * * *", "CRON_TZ=Nowhere/City * * * * *"])
def test_a_faulty_cron_is_refused(client: QStash, cron: str) -> None:
    with pytest.raises(QStashError, match="400"):
        client.schedule.create(cron=cron, destination="https://example.com")


def test_a_faulty_id_is_refused(client: QStash) -> None:
    with pytest.raises(QStashError, match="400"):
        client.schedule.create(cron=NEVER, destination="https://example.com", schedule_id="with space")
