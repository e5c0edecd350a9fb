"""Queues over HTTP."""

from __future__ import annotations

from typing import Any

from tests.destination import Reply, destination
from tests.integration.relay.conftest import Relay
from tests.wait import until

AT = "http://127.0.0.1:9/x"


def test_a_queue_is_created_changed_shown_and_removed(shared: Relay) -> None:
    made = shared.call("POST", "/v2/queues", json={"queueName": "a.B_c-1", "parallelism": 3})
    assert (made.status_code, made.json()) == (200, {})
    shown: dict[str, Any] = shared.call("GET", "/v2/queues/a.B_c-1").json()
    assert set(shown) == {"name", "createdAt", "updatedAt", "parallelism", "paused", "lag"}
    assert (shown["parallelism"], shown["paused"], shown["lag"]) == (3, False, 0)
    shared.call("POST", "/v2/queues", json={"queueName": "a.B_c-1", "parallelism": 5, "paused": True})
    assert [
        (queue["parallelism"], queue["paused"])
        for queue in shared.call("GET", "/v2/queues").json()
        if queue["name"] == "a.B_c-1"
    ] == [(5, True)]
    assert shared.call("DELETE", "/v2/queues/a.B_c-1").status_code == 200
    for method, path in (("GET", ""), ("DELETE", "")):
        answer = shared.call(method, f"/v2/queues/a.B_c-1{path}")
        assert (answer.status_code, answer.json()) == (404, {"error": "queue a.B_c-1 not found"})


def test_a_paused_queue_holds_its_messages_and_counts_them_until_it_is_resumed(shared: Relay) -> None:
    with destination() as server:
        assert shared.call("POST", "/v2/queues/held/pause").status_code == 200
        for n in range(3):
            id_ = shared.call("POST", f"/v2/enqueue/held/{server.url}/{n}").json()["messageId"]
        assert shared.call("GET", "/v2/queues/held").json()["lag"] == 3
        waiting = shared.call("GET", f"/v2/messages/{id_}").json()["waiting"]
        assert waiting["reason"] == "paused"
        assert server.received == []
        assert shared.call("POST", "/v2/queues/held/resume").status_code == 200
        until(lambda: len(server.received) == 3)
        assert [received.path for received in server.received] == ["/0", "/1", "/2"]
        until(lambda: shared.call("GET", "/v2/queues/held").json()["lag"] == 0)


def test_a_message_shows_the_number_of_messages_before_it(shared: Relay) -> None:
    with destination(lambda _: Reply(delay_seconds=20)) as server:
        ids = [shared.call("POST", f"/v2/enqueue/line/{server.url}").json()["messageId"] for _ in range(3)]
        until(lambda: server.received)
        shown = shared.call("GET", f"/v2/messages/{ids[2]}").json()
        assert (shown["state"], shared.state(ids[0])) == ("queued", "active")
        assert (shown["waiting"]["reason"], shown["waiting"]["detail"][:9]) == ("queue", "2 before ")
        assert len(server.received) == 1


def test_bad_input_is_400_with_its_name(shared: Relay) -> None:
    rows: list[tuple[str, str, str]] = [
        ("/v2/queues", "", "JSON"),
        ("/v2/queues", "[]", "JSON object"),
        ("/v2/queues", "{}", "queueName"),
        ("/v2/queues", '{"queueName":7}', "queueName"),
        ("/v2/queues", '{"queueName":"a b"}', "queueName"),
        ("/v2/queues", '{"queueName":"q","parallelism":0}', "parallelism"),
        ("/v2/queues", '{"queueName":"q","parallelism":"2"}', "parallelism"),
        ("/v2/queues", '{"queueName":"q","parallelism":true}', "parallelism"),
        ("/v2/queues", '{"queueName":"q","paused":"yes"}', "paused"),
        ("/v2/queues/a%20b/pause", "", "queueName"),
        ("/v2/queues/a%00b/resume", "", "NUL"),
    ]
    for path, body, words in rows:
        answer = shared.call("POST", path, data=body)
        assert answer.status_code == 400, (path, body, answer.text)
        assert words in answer.json()["error"], (path, body, answer.text)
