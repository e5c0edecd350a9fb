"""Dead letters over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.destination import Destination, Reply, destination
from tests.integration.relay.conftest import Relay
from tests.wait import until


def broken(_: object) -> Reply:
    return Reply(404, b"404 Not Found", {"X-Why": "gone"})


def buried(relay: Relay, server: Destination, count: int = 1, **headers: str) -> list[dict[str, Any]]:
    """Publish messages that fail at once; return their dead letters, newest first."""
    named = {name.replace("_", "-"): value for name, value in headers.items()} | {"Upstash-Retries": "0"}
    ids = [
        relay.call("POST", f"/v2/publish/{server.url}/x", data=str(n), headers=named).json()["messageId"]
        for n in range(count)
    ]

    def dead_letters() -> list[dict[str, Any]]:
        answer = relay.call("GET", f"/v2/dlq?messageId={','.join(ids)}").json()
        found: list[dict[str, Any]] = answer["messages"]
        return found if len(found) == count else []

    return until(dead_letters)


def test_a_dead_letter_shows_the_message_and_the_last_answer(shared: Relay) -> None:
    with destination(broken) as server:
        [letter] = buried(shared, server, Upstash_Label="l")
        assert shared.call("GET", f"/v2/dlq/{letter['dlqId']}").json() == letter
    assert (letter["responseStatus"], letter["responseBody"]) == (404, "404 Not Found")
    assert letter["responseHeader"]["X-Why"] == ["gone"]
    assert (letter["url"], letter["body"], letter["maxRetries"], letter["label"]) == (f"{server.url}/x", "0", 0, "l")


def test_pages_are_read_by_cursor_without_repeats(shared: Relay) -> None:
    with destination(broken) as server:
        expected = [letter["dlqId"] for letter in buried(shared, server, 5, Upstash_Label="paged")]
    seen: list[str] = []
    cursor, pages = "", 0
    while pages == 0 or cursor:
        page = shared.call("GET", f"/v2/dlq?label=paged&count=2&cursor={cursor}").json()
        seen += [letter["dlqId"] for letter in page["messages"]]
        cursor, pages = page.get("cursor", ""), pages + 1
    assert "cursor" not in page, "the last page has none"
    assert (seen, pages) == (expected, 3)


def test_one_dead_letter_is_removed(shared: Relay) -> None:
    with destination(broken) as server:
        [letter] = buried(shared, server)
    path = f"/v2/dlq/{letter['dlqId']}"
    assert shared.call("DELETE", path).status_code == 200
    assert shared.call("GET", path).status_code == 404
    again = shared.call("DELETE", path)
    assert (again.status_code, again.json()) == (404, {"error": f"dead letter {letter['dlqId']} not found"})


def test_many_dead_letters_are_removed_by_ids_in_the_body_in_the_query_and_by_filter(shared: Relay) -> None:
    with destination(broken) as server:
        ids = [letter["dlqId"] for letter in buried(shared, server, 5, Upstash_Label="removed")]
    assert shared.call("DELETE", "/v2/dlq", json={"dlqIds": ids[:1]}).json()["deleted"] == 1
    assert shared.call("DELETE", f"/v2/dlq?dlqIds={ids[1]}&dlqIds={ids[2]}").json()["deleted"] == 2
    one = shared.call("DELETE", "/v2/dlq?label=removed&count=1").json()
    assert one["deleted"] == 1
    # More remain, so the answer has a cursor.
    rest = shared.call("DELETE", f"/v2/dlq?label=removed&count=5&cursor={one['cursor']}").json()
    assert rest == {"deleted": 1}


def test_a_dead_letter_is_published_again_with_other_options(shared: Relay) -> None:
    with destination(broken) as server:
        [letter] = buried(shared, server, Upstash_Forward_A="old", Upstash_Forward_B="kept")
        server.answer = lambda _: Reply()
        retried = shared.call("POST", f"/v2/dlq/retry/{letter['dlqId']}", headers={"Upstash-Forward-A": "new"})
        assert (retried.status_code, list(retried.json())) == (201, ["messageId"])
        until(lambda: shared.state(retried.json()["messageId"]) == "delivered")
        last = server.received[-1]
    assert (last.body, last.headers["A"], last.headers["B"]) == (b"0", "new", "kept")
    assert shared.call("GET", f"/v2/dlq/{letter['dlqId']}").status_code == 404
    assert shared.call("POST", f"/v2/dlq/retry/{letter['dlqId']}").status_code == 404
    assert shared.call("POST", f"/v2/dlq/retry?dlqIds={letter['dlqId']}").status_code == 404
    assert shared.call("POST", "/v2/dlq/retry?label=of-no-letter").json() == {"cursor": "", "responses": []}
    assert shared.call("POST", f"/v2/dlq/retry?dlqIds={letter['dlqId']}&count=100").status_code == 404


def test_a_dead_letter_that_was_retried_cannot_be_removed_and_the_new_message_stays(shared: Relay) -> None:
    """The vendor's documentation of the route: 404 when it does not exist. Clients clean up after a retry by removing
    many.
    """
    with destination(broken) as server:
        [letter] = buried(shared, server)
        new = shared.call("POST", f"/v2/dlq/retry/{letter['dlqId']}", headers={"Upstash-Delay": "1h"}).json()[
            "messageId"
        ]
    assert shared.call("DELETE", f"/v2/dlq/{letter['dlqId']}").status_code == 404
    assert shared.call("DELETE", f"/v2/dlq?dlqIds={letter['dlqId']}").json() == {"deleted": 0}
    old = shared.call("DELETE", f"/v2/messages/{letter['messageId']}")
    assert (old.status_code, old.json()) == (202, {"cancelled": 0})
    assert shared.state(new) == "waiting"
    assert shared.call("DELETE", f"/v2/messages/{new}").json() == {"cancelled": 1}


def test_a_retry_with_a_bad_option_is_400_and_the_dead_letter_stays(shared: Relay) -> None:
    with destination(broken) as server:
        [letter] = buried(shared, server)
    answer = shared.call("POST", f"/v2/dlq/retry/{letter['dlqId']}", headers={"Upstash-Retries": "many"})
    assert (answer.status_code, "Upstash-Retries" in answer.json()["error"]) == (400, True)
    assert shared.call("GET", f"/v2/dlq/{letter['dlqId']}").status_code == 200


@pytest.mark.parametrize("by", ["ids", "filter"])
def test_many_dead_letters_are_published_again(shared: Relay, by: str) -> None:
    label = f"retried-{by}"
    with destination(broken) as server:
        ids = [letter["dlqId"] for letter in buried(shared, server, 3, Upstash_Label=label)]
        server.answer = lambda _: Reply()
        query = f"dlqIds={','.join(ids)}" if by == "ids" else f"label={label}"
        answer = shared.call("POST", f"/v2/dlq/retry?{query}")
        assert (answer.status_code, answer.json()["cursor"]) == (201, "")
        assert len({item["messageId"] for item in answer.json()["responses"]}) == 3
        until(lambda: len(server.received) == 6)
    assert shared.call("GET", f"/v2/dlq?label={label}").json() == {"messages": []}


def test_bad_input_is_400_with_its_name(shared: Relay) -> None:
    rows: list[tuple[str, str, str, str]] = [
        ("GET", "/v2/dlq?colour=red", "", "'colour'"),
        ("GET", "/v2/dlq?count=none", "", "'count'"),
        ("GET", "/v2/dlq?count=0", "", "'count'"),
        ("GET", "/v2/dlq?cursor=none", "", "cursor"),
        ("GET", "/v2/dlq?fromDate=yesterday", "", "'fromDate'"),
        ("GET", "/v2/dlq?responseStatus=teapot", "", "'responseStatus'"),
        ("GET", "/v2/dlq?label=a%00b", "", "NUL"),
        ("GET", "/v2/dlq/a%00b", "", "NUL"),
        ("DELETE", "/v2/dlq", "", "all=true"),
        ("DELETE", "/v2/dlq?dlqIds=", "", "'dlqids' is empty"),
        ("DELETE", "/v2/dlq", "[1]", "object"),
        ("DELETE", "/v2/dlq", '{"dlqIds":[{}]}', "'dlqIds'"),
        ("POST", "/v2/dlq/retry", "", "all=true"),
        ("POST", "/v2/dlq/retry?dlqIds=" + ",".join(map(str, range(501))), "", "more than 500 ids"),
    ]
    for method, path, body, words in rows:
        answer = shared.call(method, path, data=body)
        assert answer.status_code == 400, (method, path[:80], body, answer.text)
        assert words in answer.json()["error"], (method, path[:80], body, answer.text)


def test_an_empty_list_of_ids_removes_nothing(shared: Relay) -> None:
    with destination(broken) as server:
        [letter] = buried(shared, server)
    agent = {"User-Agent": "python-httpx/0.28"}
    assert shared.call("DELETE", "/v2/dlq", json={"dlqIds": []}, headers=agent).json() == {"deleted": 0}
    assert shared.call("GET", f"/v2/dlq/{letter['dlqId']}").status_code == 200
