"""URL groups over HTTP."""

from __future__ import annotations

from typing import Any

from tests.destination import destination
from tests.integration.relay.conftest import Relay
from tests.wait import until


def endpoints(relay: Relay, name: str) -> list[dict[str, Any]]:
    shown: dict[str, Any] = relay.call("GET", f"/v2/topics/{name}").json()
    return sorted(shown["endpoints"], key=lambda item: str(item["url"]))


def test_endpoints_are_added_renamed_and_removed_by_name_or_url_until_the_group_is_gone(shared: Relay) -> None:
    path = "/v2/topics/g.1/endpoints"
    a, b = "https://a.example/x", "https://b.example"
    added = shared.call("POST", path, json={"endpoints": [{"url": a, "name": "one"}, {"url": b}]})
    assert (added.status_code, added.json()) == (200, {})
    assert endpoints(shared, "g.1") == [{"name": "one", "url": a}, {"url": b}]
    shared.call("POST", path, json={"endpoints": [{"url": b, "name": "two"}]})
    assert endpoints(shared, "g.1") == [{"name": "one", "url": a}, {"name": "two", "url": b}]
    assert "g.1" in [group["name"] for group in shared.call("GET", "/v2/topics").json()]
    assert shared.call("DELETE", path, json={"endpoints": [{"name": "one"}]}).status_code == 200
    assert endpoints(shared, "g.1") == [{"name": "two", "url": b}]
    shared.call("DELETE", path, json={"endpoints": [{"url": b}]})
    assert shared.call("GET", "/v2/topics/g.1").status_code == 404
    assert shared.call("DELETE", path, json={"endpoints": [{"url": b}]}).status_code == 404


def test_removing_an_unknown_group_is_not_an_error(shared: Relay) -> None:
    assert shared.call("DELETE", "/v2/topics/never-made").status_code == 200
    assert shared.call("GET", "/v2/topics/never-made").json() == {"error": "URL group never-made not found"}


def test_the_senders_headers_override_a_groups_default_headers(shared: Relay) -> None:
    with destination() as server:
        shared.call("POST", "/v2/topics/with-headers/endpoints", json={"endpoints": [{"url": server.url}]})
        headers = {"Upstash-Forward-A": "group", "Upstash-Forward-B": ["1", "2"], "Upstash-Retries": "7"}
        assert shared.call("PATCH", "/v2/topics/with-headers", json={"headers": headers}).status_code == 200
        [item] = shared.call("POST", "/v2/publish/with-headers", headers={"Upstash-Forward-A": "sender"}).json()
        [received] = until(lambda: server.received)
        assert (received.headers["A"], received.headers["B"]) == ("sender", "1, 2")
        assert received.headers.get("Upstash-Topic-Name") == "with-headers"
        assert shared.call("GET", f"/v2/messages/{item['messageId']}").json()["maxRetries"] == 7


def test_bad_input_is_400_with_its_name(shared: Relay) -> None:
    rows: list[tuple[str, str, Any, str]] = [
        ("POST", "/v2/topics/a%20b/endpoints", {"endpoints": [{"url": "https://a.example"}]}, "URL group name"),
        ("POST", "/v2/topics/g/endpoints", [], "JSON object"),
        ("POST", "/v2/topics/g/endpoints", {}, "endpoints"),
        ("POST", "/v2/topics/g/endpoints", {"endpoints": []}, "1 to 100"),
        ("POST", "/v2/topics/g/endpoints", {"endpoints": ["https://a.example"]}, "endpoint 0"),
        ("POST", "/v2/topics/g/endpoints", {"endpoints": [{"name": "n"}]}, "url of endpoint 0"),
        ("POST", "/v2/topics/g/endpoints", {"endpoints": [{"url": "ftp://a.example"}]}, "endpoint 0"),
        (
            "POST",
            "/v2/topics/g/endpoints",
            {"endpoints": [{"url": "https://a.example", "name": "a b"}]},
            "endpoint name",
        ),
        ("POST", "/v2/topics/g/endpoints", {"endpoints": [{"url": "https://a.example"}] * 2}, "same url"),
        (
            "POST",
            "/v2/topics/g/endpoints",
            {"endpoints": [{"url": f"https://{n}.example", "name": "n"} for n in "ab"]},
            "same name",
        ),
        ("POST", "/v2/topics/g/endpoints", {"endpoints": [{"url": f"https://{n}.example"} for n in range(101)]}, "100"),
        ("POST", "/v2/topics/g/endpoints", {"endpoints": [{"url": "https://a.example/" + "x" * 2048}]}, "longer than"),
        ("DELETE", "/v2/topics/g/endpoints", {"endpoints": [{}]}, "name or a url"),
        ("PATCH", "/v2/topics/g", {}, "headers"),
        ("PATCH", "/v2/topics/g", {"headers": {"X": 1}}, "'X'"),
        ("PATCH", "/v2/topics/g", {"headers": {"Upstash-Retries": "many"}}, "Upstash-Retries"),
    ]
    for method, path, content, words in rows:
        answer = shared.call(method, path, json=content)
        assert answer.status_code == 400, (path, content, answer.text)
        assert words in answer.json()["error"], (path, content, answer.text)
    assert shared.call("GET", "/v2/topics/g").status_code == 404
