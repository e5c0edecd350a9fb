"""How a request finds its route, and its access decision, which has no default."""

from __future__ import annotations

import re

import pytest

from services.relay.api.router import TABLE, Finder, Found, Route
from tests.process import ROOT

FINDER = Finder(TABLE)


def found(method: str, path: str) -> Found:
    answer = FINDER.find(method, path)
    assert isinstance(answer, Found), f"{method} {path}: {answer}"
    return answer


def methods(path: str, wanted: str = "PUT") -> frozenset[str]:
    """The methods of the path, which lacks the requested one."""
    answer = FINDER.find(wanted, path)
    assert not isinstance(answer, Found)
    return answer


def test_every_route_has_an_access_decision_of_its_own() -> None:
    assert {route.access for route in TABLE} == {"open", "read", "write"}
    assert {route.path for route in TABLE if route.access == "open"} == {"/healthz", "/readyz", "/metrics"}


def test_a_route_that_changes_something_needs_a_token_that_writes_and_so_do_the_signing_keys() -> None:
    assert [route for route in TABLE if route.method != "GET" and route.access != "write"] == []
    assert [route.path for route in TABLE if route.method == "GET" and route.access == "write"] == ["/v2/keys"]


def test_no_route_is_listed_twice() -> None:
    assert len({(route.method, route.path) for route in TABLE}) == len(TABLE)


def test_every_route_is_found_by_its_own_path_and_not_by_an_earlier_one() -> None:
    for route in TABLE:
        path = re.sub(r"\{destination\}", "https://a.example/x?y=1", route.path)
        path = re.sub(r"\{[a-z]+\}", "some-1", path)
        assert found(route.method, path).route == route, path


@pytest.mark.parametrize(
    "destination",
    [
        "https://a.example/x//y?a=1&b=%2F",
        "https://a.example",
        "group-1",
        "https%3A%2F%2Fa.example%2Fx",
        "https://a.example/?next=/v2/messages/1",
    ],
)
def test_a_destination_is_the_rest_of_the_raw_path(destination: str) -> None:
    assert found("POST", f"/v2/publish/{destination}").parts == (destination,)
    assert found("POST", f"/v2/enqueue/q.1/{destination}").parts == ("q.1", destination)
    assert found("POST", f"/v2/schedules/{destination}").parts == (destination,)


def test_a_query_is_not_a_part_of_other_paths() -> None:
    answer = found("GET", "/v2/messages/msg_1?qstash_token=t&x=%2F")
    assert (answer.parts, answer.query) == (("msg_1",), "qstash_token=t&x=%2F")


@pytest.mark.parametrize("prefix", ["/v2/publish", "/v2/publish/", "/v1/publish", "/v2/publish/v2/publish", "/"])
def test_a_base_url_that_ends_in_publish_is_tolerated(prefix: str) -> None:
    assert found("POST", f"{prefix}/v2/publish/https://a.example").parts == ("https://a.example",)
    if prefix != "/":
        assert found("GET", f"{prefix}/v2/messages/msg_1").parts == ("msg_1",)


def test_a_flow_control_key_may_hold_slashes() -> None:
    assert found("GET", "/v2/flowControl/a/b").parts == ("a/b",)
    assert found("POST", "/v2/flowControl/a/b/pin?rate=1").parts == ("a/b",)
    assert found("POST", "/v2/flowControl/pause/pause").parts == ("pause",)


def test_pausing_a_schedule_is_not_a_schedule_for_a_destination() -> None:
    assert found("PATCH", "/v2/schedules/scd_1/pause").route.path == "/v2/schedules/{id}/pause"
    assert found("POST", "/v2/schedules/scd_1/pause").route.path == "/v2/schedules/{id}/pause"
    assert found("POST", "/v2/schedules/https://a.example/pause").route.path == "/v2/schedules/{destination}"


def test_the_retry_of_all_dead_letters_is_not_a_dead_letter_named_retry() -> None:
    assert found("POST", "/v2/dlq/retry").route.path == "/v2/dlq/retry"
    assert found("POST", "/v2/dlq/retry/1-a").parts == ("1-a",)


@pytest.mark.parametrize(
    "path",
    ["/", "/v2", "/v3/messages/1", "/v2/nothing", "/v2/messages/", "/v2/messages/1/2", "/v2/publish/", "/v1/dlq"],
)
def test_an_unknown_path_has_no_method(path: str) -> None:
    assert FINDER.find("GET", path) == frozenset()
    assert FINDER.find("DELETE", path) == frozenset()


def test_a_known_path_has_its_methods() -> None:
    assert methods("/v2/messages/msg_1") == {"GET", "HEAD", "DELETE"}
    assert methods("/v2/publish/https://a.example", "OPTIONS") == {"POST"}


def test_head_is_a_get() -> None:
    assert found("HEAD", "/v2/messages/msg_1").route.method == "GET"
    assert methods("/v2/batch", "HEAD") == {"POST"}


def test_the_reference_lists_every_route_and_no_other() -> None:
    text = (ROOT / "docs" / "reference" / "relay.md").read_text()
    rows = re.findall(r"^\| `(GET|POST|PUT|PATCH|DELETE)` \| `(/[^`]*)` \| (open|read|write) \|", text, re.MULTILINE)
    assert sorted(rows) == sorted((route.method, route.path, route.access) for route in TABLE)


def test_a_route_without_an_access_decision_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="access"):
        Route("GET", "/v2/new", TABLE[0].handler)  # type: ignore[call-arg]
