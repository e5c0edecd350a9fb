"""The protocol's first version over HTTP."""

from __future__ import annotations

import base64
from typing import Any

from tests.destination import destination
from tests.integration.relay.conftest import Relay
from tests.wait import until

AT = "http://127.0.0.1:9/x"
FAR = {"Upstash-Delay": "1h"}


def test_a_message_and_its_task_are_shown_and_cancelled(shared: Relay) -> None:
    id_ = shared.call("POST", f"/v1/publish/{AT}", data="body", headers=FAR).json()["messageId"]
    shown: dict[str, Any] = shared.call("GET", f"/v1/messages/{id_}").json()
    assert (shown["messageId"], shown["url"], shown["destinationType"]) == (id_, AT, "url")
    assert base64.b64decode(shown["body"]) == b"body"
    assert shown["header"] == shown["headers"]
    [task] = shared.call("GET", f"/v1/messages/{id_}/tasks").json()["tasks"]
    assert (task["messageId"], task["state"], task["maxRetry"]) == (id_, "created", 3)
    cancelled = shared.call("DELETE", f"/v1/messages/{id_}")
    assert (cancelled.status_code, cancelled.json()) == (202, {"status": "accepted"})
    for path in (f"/v1/messages/{id_}", f"/v1/messages/{id_}/tasks"):
        assert shared.call("GET", path).status_code == 404
    assert shared.call("DELETE", "/v1/messages/msg_unknown").status_code == 404


def test_topics_have_endpoints_with_ids(shared: Relay) -> None:
    made = shared.call("POST", "/v1/endpoints", json={"url": "https://a.example", "topicName": "v1"})
    assert made.status_code == 201
    endpoint: dict[str, Any] = made.json()
    [topic] = [topic for topic in shared.call("GET", "/v1/topics").json() if topic["name"] == "v1"]
    assert topic["endpoints"] == [endpoint]
    assert endpoint["topicId"] == topic["topicId"]
    for named in ("v1", topic["topicId"]):
        assert shared.call("GET", f"/v1/topics/{named}").json() == topic
    assert endpoint in shared.call("GET", "/v1/endpoints").json()
    assert shared.call("DELETE", f"/v1/endpoints/{endpoint['endpointId']}").status_code == 200
    assert shared.call("DELETE", f"/v1/endpoints/{endpoint['endpointId']}").status_code == 404
    assert shared.call("GET", "/v1/topics/v1").status_code == 404


def test_a_topic_is_created_renamed_and_its_endpoint_changed(shared: Relay) -> None:
    made = shared.call("POST", "/v1/topics", json={"name": "made"})
    assert (made.status_code, made.json()) == (201, {"topicId": "topic_made", "name": "made", "endpoints": []})
    given = {"url": "https://a.example", "topicId": "topic_made", "name": "first"}
    endpoint = shared.call("POST", "/v1/endpoints", json=given).json()
    assert shared.call("GET", f"/v1/endpoints/{endpoint['endpointId']}").json() == endpoint
    moved = shared.call("PUT", f"/v1/endpoints/{endpoint['endpointId']}", json={"url": "https://b.example"})
    assert (moved.status_code, moved.json()["url"], moved.json()["name"]) == (200, "https://b.example", "first")
    assert shared.call("GET", f"/v1/endpoints/{endpoint['endpointId']}").status_code == 404
    assert shared.call("PUT", "/v1/topics/made", json={"name": "renamed"}).status_code == 200
    assert shared.call("GET", "/v1/topics/made").status_code == 404
    [left] = shared.call("GET", "/v1/topics/renamed").json()["endpoints"]
    assert (left["url"], left["topicId"]) == ("https://b.example", "topic_renamed")
    shared.call("POST", "/v1/topics", json={"name": "other"})
    taken = shared.call("PUT", "/v1/topics/other", json={"name": "renamed"})
    assert (taken.status_code, taken.json()) == (400, {"error": "there is a topic named renamed"})
    for method, path in (("PUT", "/v1/topics/none"), ("PUT", "/v1/endpoints/none"), ("GET", "/v1/endpoints/none")):
        answer = shared.call(method, path, json={"name": "n", "url": "https://a.example"})
        assert answer.status_code == 404, (method, path)


def test_a_topic_is_published_to_and_removed(shared: Relay) -> None:
    with destination() as server:
        shared.call("POST", "/v1/endpoints", json={"url": server.url, "topicId": "topic_gone"})
        answer = shared.call("POST", "/v1/publish/gone", data="x")
        assert answer.status_code == 201
        assert [item["url"] for item in answer.json()] == [server.url]
        until(lambda: server.received)
    assert shared.call("DELETE", "/v1/topics/topic_gone").status_code == 200
    assert shared.call("DELETE", "/v1/topics/gone").status_code == 404


def test_schedules_are_shown_and_removed(shared: Relay) -> None:
    headers = {"Upstash-Cron": "0 0 1 1 *", "Upstash-Forward-X-A": "1"}
    id_ = shared.call("POST", f"/v1/publish/{AT}", data="body", headers=headers).json()["scheduleId"]
    shown = shared.call("GET", f"/v1/schedules/{id_}").json()
    assert (shown["cron"], shown["header"]) == ("0 0 1 1 *", shown["headers"])
    assert shown["destination"] == {"type": "url", "url": AT}
    assert shown["content"] == {"header": {"X-A": "1"}, "body": "body"}
    assert shown["settings"] == {"retries": 3, "notBefore": 0, "deadline": 0}
    assert shown in shared.call("GET", "/v1/schedules").json()
    assert shared.call("DELETE", f"/v1/schedules/{id_}").status_code == 200
    assert shared.call("GET", f"/v1/schedules/{id_}").status_code == 404


def test_bad_input_is_400_with_its_name(shared: Relay) -> None:
    rows = [
        ({"url": "https://a.example"}, "topicName or topicId"),
        ({"url": "https://a.example", "topicName": "a b"}, "topicName"),
        ({"topicName": "t"}, "url of endpoint 0"),
        ({"url": "ftp://a.example", "topicName": "t"}, "endpoint 0"),
    ]
    for content, words in rows:
        answer = shared.call("POST", "/v1/endpoints", json=content)
        assert answer.status_code == 400, (content, answer.text)
        assert words in answer.json()["error"], (content, answer.text)


def test_routes_that_no_client_of_that_time_called_are_not_served(shared: Relay) -> None:
    for path in ("/v1/events", "/v1/quota", "/v1/logs"):
        assert shared.call("GET", path).status_code == 404, path
