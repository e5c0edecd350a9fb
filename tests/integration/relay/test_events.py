"""Events and logs over HTTP."""

from __future__ import annotations

import base64
from typing import Any

from tests.destination import Reply, destination
from tests.integration.relay.conftest import Relay
from tests.wait import until


def events(relay: Relay, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = relay.call("GET", f"/v2/events?{query}").json()["events"]
    return found


def states(relay: Relay, query: str) -> list[str]:
    """The states of the events, oldest first."""
    return [event["state"] for event in events(relay, f"order=earliestFirst&{query}")]


def test_every_step_of_a_message_is_an_event_newest_first(shared: Relay) -> None:
    statuses = iter([500, 200])
    with destination(lambda _: Reply(next(statuses), b"why")) as server:
        id_ = shared.publish(server.url, "x", Upstash_Retry_Delay="1", Upstash_Label="steps").json()["messageId"]
        until(lambda: "DELIVERED" in states(shared, f"messageId={id_}"))
    assert states(shared, f"messageId={id_}") == ["CREATED", "ACTIVE", "ERROR", "RETRY", "ACTIVE", "DELIVERED"]
    newest_first = events(shared, f"messageId={id_}")
    assert newest_first[0]["state"] == "DELIVERED"
    assert [event["time"] for event in newest_first] == sorted((event["time"] for event in newest_first), reverse=True)
    [error] = [event for event in newest_first if event["state"] == "ERROR"]
    assert (error["responseStatus"], base64.b64decode(error["responseBody"])) == (500, b"why")
    assert error["responseHeader"] == error["responseHeaders"]
    [retry] = [event for event in newest_first if event["state"] == "RETRY"]
    assert retry["nextDeliveryTime"] >= retry["time"]
    assert {event["label"] for event in newest_first} == {"steps"}


def test_events_and_logs_differ_in_the_key_and_in_one_spelling(shared: Relay) -> None:
    id_ = shared.publish("http://127.0.0.1:9/x", "x", Upstash_Delay="1h").json()["messageId"]
    shared.call("DELETE", f"/v2/messages/{id_}")
    for spelling in ("CANCELED", "CANCELLED"):
        found = shared.call("GET", f"/v2/events?messageId={id_}&state={spelling}").json()
        assert [event["state"] for event in found["events"]] == ["CANCELED"]
        logged = shared.call("GET", f"/v2/logs?messageId={id_}&state={spelling}").json()
        assert [event["state"] for event in logged["logs"]] == ["CANCELLED"]


def test_pages_are_read_by_cursor_without_repeats(shared: Relay) -> None:
    items = [
        {"destination": "http://127.0.0.1:9/x", "headers": {"Upstash-Delay": "1h", "Upstash-Label": "paged"}}
        for _ in range(5)
    ]
    published = [item["messageId"] for item in shared.call("POST", "/v2/batch", json=items).json()]
    for path, key in (("events", "events"), ("logs", "logs")):
        seen: list[str] = []
        cursor, pages = "", 0
        while pages == 0 or cursor:
            page = shared.call("GET", f"/v2/{path}?label=paged&count=2&cursor={cursor}").json()
            seen += [event["messageId"] for event in page[key]]
            cursor, pages = page.get("cursor", ""), pages + 1
        assert "cursor" not in page, "the last page has none"
        assert (sorted(seen), pages) == (sorted(published), 3)


def test_a_cursor_in_milliseconds_is_the_time_of_the_first_event(shared: Relay) -> None:
    id_ = shared.publish("http://127.0.0.1:9/x", "x", Upstash_Delay="1h").json()["messageId"]
    [created] = events(shared, f"messageId={id_}")
    assert events(shared, f"messageId={id_}&cursor={created['time'] + 1}") == [created]
    assert events(shared, f"messageId={id_}&cursor={created['time'] - 1}") == []


def test_each_filter_selects_its_events(shared: Relay) -> None:
    with destination() as server:
        headers = {"Upstash-Flow-Control-Key": "ek", "Upstash-Flow-Control-Value": "rate=9", "Upstash-Label": "el"}
        chosen = shared.call("POST", f"/v2/enqueue/eq/{server.url}/chosen", headers=headers).json()["messageId"]
        other = shared.publish(f"{server.url}/other", "x").json()["messageId"]
        until(lambda: len(events(shared, f"messageIds={chosen},{other}&state=DELIVERED")) == 2)
        queries = ("queueName=eq", "flowControlKey=ek", "label=el", "path=/chosen", f"url={server.url}/chosen")
        for query in queries:
            assert {event["messageId"] for event in events(shared, query)} == {chosen}, query
        both = {event["messageId"] for event in events(shared, f"messageIds={chosen},{other}&host=127.0.0.1")}
        assert both == {chosen, other}
        assert set(states(shared, f"messageId={chosen}&state=IN_PROGRESS")) == {"ACTIVE"}
        assert events(shared, f"messageId={chosen}&toDate=1") == []


def test_bad_input_is_400_with_its_name(shared: Relay) -> None:
    rows = [
        ("colour=red", "'colour'"),
        ("count=x", "'count'"),
        ("cursor=none", "cursor"),
        ("fromDate=now", "'fromDate'"),
        ("state=LOST", "'LOST'"),
        ("order=random", "'order'"),
        ("label=a%00b", "NUL"),
    ]
    for path in ("/v2/events", "/v2/logs"):
        for query, words in rows:
            answer = shared.call("GET", f"{path}?{query}")
            assert answer.status_code == 400, (path, query, answer.text)
            assert words in answer.json()["error"], (path, query, answer.text)
