"""Flow-control keys over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from tests.destination import Reply, destination
from tests.integration.relay.conftest import Relay
from tests.wait import until

AT = "http://127.0.0.1:9/x"


def publish(relay: Relay, url: str, key: str, limits: str, **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named |= {"Upstash-Flow-Control-Key": key, "Upstash-Flow-Control-Value": limits}
    answer = relay.call("POST", f"/v2/publish/{url}", headers=named)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["messageId"])


def shown(relay: Relay, key: str) -> dict[str, Any]:
    content: dict[str, Any] = relay.call("GET", f"/v2/flowControl/{key}").json()
    return content


def test_the_global_parallelism_applies_to_all_processes_together(new_relay: Callable[..., Relay]) -> None:
    one, other = (new_relay(RELAY_CONCURRENCY_MAX="7", RELAY_LEASE_SECONDS="2") for _ in range(2))

    def greatest() -> int:
        return int(one.call("GET", "/v2/globalParallelism").json()["parallelismMax"])

    until(lambda: greatest() == 14)
    other.process.kill()
    until(lambda: greatest() == 7)


def test_a_key_is_shown_with_its_limits_and_its_waiting_messages(shared: Relay) -> None:
    with destination(lambda _: Reply(delay_seconds=20)) as server:
        ids = [publish(shared, server.url, "shown", "parallelism=1, rate=10, period=1m") for _ in range(3)]
        until(lambda: shown(shared, "shown")["parallelismCount"] == 1)
        key = shown(shared, "shown")
        assert {name: key[name] for name in key if name != "ratePeriodStart"} == {
            "flowControlKey": "shown",
            "waitListSize": 2,
            "parallelismMax": 1,
            "parallelismCount": 1,
            "rateMax": 10,
            "rateCount": 1,
            "ratePeriod": 60,
            "isPaused": False,
            "isPinnedParallelism": False,
            "isPinnedRate": False,
            "isPinnedCooling": False,
            "cooling": True,
        }
        assert key["ratePeriodStart"] > 0
        waiting = shared.call("GET", f"/v2/messages/{ids[2]}").json()["waiting"]
        assert (waiting["reason"], "1 of 1 at once" in waiting["detail"]) == ("flow_control", True)
        found = shared.call("GET", "/v2/flowControl?search=how").json()
        assert [item["flowControlKey"] for item in found] == ["shown"]
        assert shared.call("GET", "/v2/globalParallelism").json()["parallelismCount"] == 1
        assert shared.call("GET", "/v2/globalParallelism").json()["parallelismMax"] == 10_000


def test_an_unknown_key_is_404(shared: Relay) -> None:
    answer = shared.call("GET", "/v2/flowControl/unknown/key")
    assert (answer.status_code, answer.json()) == (404, {"error": "flow-control key unknown/key not found"})


def test_a_paused_key_holds_its_messages_until_it_is_resumed(shared: Relay) -> None:
    with destination() as server:
        assert shared.call("POST", "/v2/flowControl/a%2Fheld/pause").status_code == 200
        id_ = publish(shared, server.url, "a/held", "parallelism=1")
        other = publish(shared, f"{server.url}/other", "not-held", "parallelism=1")
        until(lambda: shared.state(other) == "delivered")
        assert shown(shared, "a/held")["isPaused"]
        assert shared.call("GET", f"/v2/messages/{id_}").json()["waiting"]["reason"] == "paused"
        assert shared.call("POST", "/v2/flowControl/a/held/resume").status_code == 200
        until(lambda: shared.state(id_) == "delivered")


def test_a_pinned_limit_is_not_changed_by_messages_until_it_is_unpinned(shared: Relay) -> None:
    path = "/v2/flowControl/pinned"
    assert shared.call("POST", f"{path}/pin?parallelism=2&rate=3&period=60").status_code == 200
    publish(shared, AT, "pinned", "parallelism=9, rate=9", Upstash_Delay="1h")
    key = shown(shared, "pinned")
    assert (key["parallelismMax"], key["rateMax"], key["ratePeriod"]) == (2, 3, 60)
    assert (key["isPinnedParallelism"], key["isPinnedRate"]) == (True, True)
    assert shared.call("POST", f"{path}/unpin?parallelism=true").status_code == 200
    publish(shared, AT, "pinned", "parallelism=9, rate=9", Upstash_Delay="1h")
    key = shown(shared, "pinned")
    assert (key["parallelismMax"], key["rateMax"]) == (9, 3)
    assert (key["isPinnedParallelism"], key["isPinnedRate"]) == (False, True)


def test_the_rate_window_can_be_reset(shared: Relay) -> None:
    with destination() as server:
        first, second = (publish(shared, server.url, "window", "rate=1, period=1h") for _ in range(2))
        until(lambda: shared.state(first) == "delivered" or shared.state(second) == "delivered")
        assert shown(shared, "window")["rateCount"] == 1
        assert shared.call("POST", "/v2/flowControl/window/resetRate").status_code == 200
        until(lambda: len(server.received) == 2)
        until(lambda: shown(shared, "window")["parallelismCount"] == 0)
        assert shared.call("POST", "/v2/flowControl/window/reset").status_code == 200
        key = shown(shared, "window")
        assert (key["rateCount"], key["ratePeriodStart"], key["waitListSize"]) == (0, 0, 0), (
            "and it outlives its messages"
        )


def test_cooling_is_switched_off_for_a_key(shared: Relay) -> None:
    calls = threading.Event()

    def busy(_: object) -> Reply:
        return Reply(200) if calls.is_set() else Reply(429, b"", {"Retry-After": "3600"})

    with destination(busy) as server:
        publish(shared, server.url, "cooled", "parallelism=1")
        until(lambda: "coolingUntil" in shown(shared, "cooled"))
        calls.set()
        other = publish(shared, server.url, "cooled", "parallelism=1")
        assert shared.call("GET", f"/v2/messages/{other}").json()["waiting"]["reason"] == "cooling"
        assert shared.call("POST", "/v2/flowControl/cooled/cooling?enabled=false").status_code == 200
        until(lambda: shared.state(other) == "delivered")
        calls.clear()
        publish(shared, server.url, "cooled", "parallelism=1", Upstash_Retries="0")
        until(lambda: len(server.received) == 3)
        key = shown(shared, "cooled")
        assert (key["cooling"], key["isPinnedCooling"], "coolingUntil" in key) == (False, True, False)
        assert shared.call("POST", "/v2/flowControl/cooled/unpin?cooling=true").status_code == 200
        publish(shared, AT, "cooled", "parallelism=1", Upstash_Delay="1h")
        key = shown(shared, "cooled")
        assert (key["cooling"], key["isPinnedCooling"]) == (True, False)


def test_bad_input_is_400_with_its_name(shared: Relay) -> None:
    rows = [
        ("POST", "/v2/flowControl/k/pin", "needs parallelism or rate"),
        ("POST", "/v2/flowControl/k/pin?rate=0", "rate"),
        ("POST", "/v2/flowControl/k/pin?rate=1&period=8d", "period"),
        ("POST", "/v2/flowControl/k/pin?speed=1", "'speed'"),
        ("POST", "/v2/flowControl/k/unpin", "parallelism=true or rate=true"),
        ("POST", "/v2/flowControl/k/cooling", "enabled"),
        ("POST", "/v2/flowControl/k/cooling?enabled=maybe", "enabled"),
        ("POST", f"/v2/flowControl/{'k' * 257}/pause", "1 to 256"),
        ("GET", "/v2/flowControl/a%00b", "NUL"),
        ("GET", "/v2/flowControl?search=a%00b", "NUL"),
        ("GET", "/v2/flowControl?colour=red", "'colour'"),
    ]
    for method, path, words in rows:
        answer = shared.call(method, path)
        assert answer.status_code == 400, (path, answer.text)
        assert words in answer.json()["error"], (path, answer.text)
