"""Schedules over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.destination import destination
from tests.integration.relay.conftest import Relay
from tests.wait import until

AT = "http://127.0.0.1:9/x"
YEARLY = {"Upstash-Cron": "0 0 1 1 *"}


def test_a_schedule_is_created_shown_listed_and_removed(shared: Relay) -> None:
    made = shared.call(
        "POST",
        f"/v2/schedules/{AT}",
        data="body",
        headers={
            "Upstash-Cron": "CRON_TZ=Europe/Berlin 0 6 * * * ",
            "Upstash-Retries": "2",
            "Upstash-Forward-Test-Header": "v",
            "Upstash-Delay": "1m",
            "Upstash-Telemetry-Sdk": "x",
            "Content-Type": "text/plain",
        },
    )
    assert (made.status_code, list(made.json())) == (200, ["scheduleId"])
    id_ = made.json()["scheduleId"]
    assert id_.startswith("scd_")
    shown: dict[str, Any] = shared.call("GET", f"/v2/schedules/{id_}").json()
    assert {
        name: shown[name] for name in ("scheduleId", "cron", "destination", "method", "body", "retries", "isPaused")
    } == {
        "scheduleId": id_,
        "cron": "CRON_TZ=Europe/Berlin 0 6 * * *",
        "destination": AT,
        "method": "POST",
        "body": "body",
        "retries": 2,
        "isPaused": False,
    }
    assert shown["header"] == {"Content-Type": ["text/plain"], "Test-Header": ["v"]}
    assert shown["nextScheduleTime"] > shown["createdAt"]
    assert shown in shared.call("GET", "/v2/schedules").json()
    assert shared.call("DELETE", f"/v2/schedules/{id_}").status_code == 200
    for method in ("GET", "DELETE"):
        answer = shared.call(method, f"/v2/schedules/{id_}")
        assert (answer.status_code, answer.json()) == (404, {"error": f"schedule {id_} not found"})


def test_a_known_id_replaces_the_schedule(shared: Relay) -> None:
    for cron in ("0 0 1 1 *", "0 0 2 2 *"):
        answer = shared.call(
            "POST", f"/v2/schedules/{AT}", headers={"Upstash-Cron": cron, "Upstash-Schedule-Id": "mine"}
        )
        assert answer.json() == {"scheduleId": "mine"}
    assert [s["cron"] for s in shared.call("GET", "/v2/schedules").json() if s["scheduleId"] == "mine"] == ["0 0 2 2 *"]


@pytest.mark.parametrize("method", ["PATCH", "POST"])
def test_a_schedule_is_paused_and_resumed_by_either_method(shared: Relay, method: str) -> None:
    id_ = shared.call("POST", f"/v2/schedules/{AT}", headers=YEARLY).json()["scheduleId"]
    for verb, paused in (("pause", True), ("resume", False)):
        assert shared.call(method, f"/v2/schedules/{id_}/{verb}").status_code == 200
        assert shared.call("GET", f"/v2/schedules/{id_}").json()["isPaused"] is paused
        assert shared.call(method, f"/v2/schedules/unknown/{verb}").status_code == 404


def test_a_schedule_fires_into_a_group_and_a_queue(shared: Relay) -> None:
    with destination() as server:
        urls = [{"url": f"{server.url}/one"}, {"url": f"{server.url}/two"}]
        shared.call("POST", "/v2/topics/scheduled/endpoints", json={"endpoints": urls})
        headers = {"Upstash-Cron": "* * * * * *", "Upstash-Queue-Name": "of-schedule"}
        id_ = shared.call("POST", "/v2/schedules/scheduled", data="tick", headers=headers).json()["scheduleId"]
        until(lambda: server.to("/one") and server.to("/two"))
        assert shared.call("DELETE", f"/v2/schedules/{id_}").status_code == 200
    received = server.to("/one")[0]
    assert (received.body, received.headers["Upstash-Schedule-Id"]) == (b"tick", id_)
    assert shared.call("GET", "/v2/queues/of-schedule").status_code == 200


def test_options_may_be_in_the_query(shared: Relay) -> None:
    answer = shared.call("POST", f"/v2/schedules/{AT}?upstash-cron=0+0+1+1+*&a=1&upstash-retries=4")
    shown = shared.call("GET", f"/v2/schedules/{answer.json()['scheduleId']}").json()
    assert (shown["destination"], shown["cron"], shown["retries"]) == (f"{AT}?a=1", "0 0 1 1 *", 4)


def test_bad_input_is_400_with_its_name(shared: Relay) -> None:
    rows: list[tuple[str, dict[str, str], str]] = [
        (AT, {}, "Upstash-Cron is missing"),
        (AT, {"Upstash-Cron": "* * *"}, "invalid cron"),
        (AT, {"Upstash-Cron": "61 * * * *"}, "invalid cron"),
        (AT, {"Upstash-Cron": "0 0 30 2 *"}, "invalid cron"),
        (AT, {"Upstash-Cron": "CRON_TZ=Mars/Olympus * * * * *"}, "time zone"),
        (AT, YEARLY | {"Upstash-Schedule-Id": "a b"}, "schedule id"),
        (AT, YEARLY | {"Upstash-Not-Before": "1800000000"}, "Upstash-Not-Before"),
        (AT, YEARLY | {"Upstash-Queue-Name": "a b"}, "queue name"),
        (AT, YEARLY | {"Upstash-Retries": "many"}, "Upstash-Retries"),
        (AT, YEARLY | {"Upstash-Delay": "soon"}, "Upstash-Delay"),
        ("no-group", YEARLY, "no URL group"),
        ("ftp://a.example", YEARLY, "scheme"),
    ]
    for address, headers, words in rows:
        answer = shared.call("POST", f"/v2/schedules/{address}", headers=headers)
        assert answer.status_code == 400, (address, headers, answer.text)
        assert words in answer.json()["error"], (address, headers, answer.text)


def test_an_accepted_message_is_counted_once_and_those_of_schedules_too(relay: Relay) -> None:
    def accepted() -> float:
        lines = requests.get(f"{relay.url}/metrics", timeout=30).text.splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith('relay_accepted_total{kind="message"}'))

    with destination() as server:
        for _ in range(2):
            assert relay.publish(server.url, Upstash_Deduplication_Id="one").ok
        assert accepted() == 1
        assert relay.call("POST", f"/v2/schedules/{server.url}/s", headers={"Upstash-Cron": "* * * * * *"}).ok
        until(lambda: server.to("/s"))
        until(lambda: accepted() >= 2)
