"""Schedules: the stored form makes the message of each firing."""

from __future__ import annotations

import pytest

from services.relay.protocol.address import GroupName, Url
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.publishing import options_of
from services.relay.protocol.schedule import ScheduleDraft, firing, new_schedule_id, schedule_draft

URL = Url("https://a.example/")
HEADERS = {
    "Authorization": "Bearer relay",
    "Upstash-Cron": "CRON_TZ=Europe/Istanbul */10 * * * * ",
    "Upstash-Delay": "10s",
    "Upstash-Retries": "5",
    "Upstash-Queue-Name": "q",
    "Content-Type": "application/json",
    "Upstash-Forward-Test-Header": "v",
    "Upstash-Telemetry-Sdk": "js",
}


def read(headers: dict[str, str], destination: Url | GroupName = URL) -> ScheduleDraft:
    return schedule_draft(destination, options_of(headers, ""), b"x", new_id="scd_new", caller_ip="1.2.3.4")


def test_a_schedule_is_read() -> None:
    schedule = read(HEADERS)
    assert (schedule.schedule_id, schedule.destination, schedule.queue) == ("scd_new", "https://a.example/", "q")
    assert (schedule.cron.zone, schedule.cron.fields) == ("Europe/Istanbul", "*/10 * * * *")
    assert schedule.cron.text == "CRON_TZ=Europe/Istanbul */10 * * * *"
    assert set(schedule.options) == {
        "upstash-delay", "upstash-retries", "content-type", "upstash-forward-test-header",
    }  # fmt: skip


def test_the_stored_form_makes_a_firing_with_a_delay_from_its_time() -> None:
    schedule = read(HEADERS)
    message = firing(
        schedule.schedule_id,
        schedule.destination,
        schedule.options,
        schedule.body,
        queue=schedule.queue,
        caller_ip="1.2.3.4",
    )
    assert (message.delay_seconds, message.retries_max, message.queue) == (10, 5, "q")
    assert message.headers == {"Test-Header": "v", "Content-Type": "application/json"}
    assert (message.schedule_id, message.body, message.url) == ("scd_new", b"x", "https://a.example/")


def test_forwarding_of_all_headers_is_resolved_at_creation() -> None:
    schedule = read(HEADERS | {"Upstash-Header-Forward": "true", "X-Event": "push"})
    message = firing("s", "https://a.example/", schedule.options, b"")
    assert message.headers == {"Test-Header": "v", "Content-Type": "application/json", "X-Event": "push"}


def test_a_group_may_be_the_destination() -> None:
    assert read(HEADERS, GroupName("orders")).destination == "orders"


def test_an_id_may_be_given() -> None:
    assert read(HEADERS | {"Upstash-Schedule-Id": "nightly.1"}).schedule_id == "nightly.1"
    assert new_schedule_id().startswith("scd_")
    assert new_schedule_id() != new_schedule_id()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"Upstash-Cron": ""}, "Upstash-Cron"),
        ({"Upstash-Cron": "often"}, "cron"),
        ({"Upstash-Not-Before": "1700000000"}, "Not-Before"),
        ({"Upstash-Schedule-Id": "a/b"}, "schedule id"),
        ({"Upstash-Queue-Name": "a b"}, "queue name"),
        ({"Upstash-Retries": "many"}, "Retries"),
    ],
)
def test_options_that_no_firing_could_use_are_refused(change: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        read(HEADERS | change)
