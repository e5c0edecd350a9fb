"""Publishing over HTTP: statuses and shapes, URL groups, queues, batches, options in the query, and the first version."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
import requests

from tests.destination import destination
from tests.integration.relay.conftest import TOKEN, Relay
from tests.wait import until

FAR = {"Upstash-Delay": "1h"}
AT = "http://127.0.0.1:9/x"


def group(relay: Relay, name: str, *urls: str) -> None:
    answer = relay.call("POST", f"/v2/topics/{name}/endpoints", json={"endpoints": [{"url": url} for url in urls]})
    assert answer.status_code == 200, answer.text


def test_a_repeated_deduplication_id_is_answered_202_with_the_first_message(shared: Relay) -> None:
    headers = FAR | {"Upstash-Deduplication-Id": "once"}
    first = shared.call("POST", f"/v2/publish/{AT}", headers=headers)
    second = shared.call("POST", f"/v2/publish/{AT}", headers=headers)
    assert first.status_code == 200
    assert (second.status_code, second.json()) == (202, first.json() | {"deduplicated": True})


def test_a_duplicate_is_not_counted_as_accepted(shared: Relay) -> None:
    def accepted() -> float:
        lines = shared.call("GET", "/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("relay_accepted_total"))

    before = accepted()
    for _ in range(3):
        shared.call("POST", f"/v2/publish/{AT}", headers=FAR | {"Upstash-Deduplication-Id": "counted-once"})
    assert accepted() - before == 1


def test_the_answer_for_a_url_group_is_an_array_with_a_message_for_each_endpoint(shared: Relay) -> None:
    with destination() as server:
        group(shared, "pair", f"{server.url}/one", f"{server.url}/two")
        answer = shared.call("POST", "/v2/publish/pair", data="body")
        assert answer.status_code == 200
        assert {item["url"] for item in answer.json()} == {f"{server.url}/one", f"{server.url}/two"}
        assert len({item["messageId"] for item in answer.json()}) == 2
        until(lambda: server.to("/one") and server.to("/two"))
    assert {received.body for received in server.received} == {b"body"}


def test_a_repeated_deduplication_id_on_a_group_is_a_duplicate_for_each_endpoint(shared: Relay) -> None:
    group(shared, "again", f"{AT}1", f"{AT}2")
    headers = FAR | {"Upstash-Deduplication-Id": "group-once"}
    first = shared.call("POST", "/v2/publish/again", headers=headers).json()
    second = shared.call("POST", "/v2/publish/again", headers=headers)
    assert second.status_code == 202
    assert second.json() == [item | {"deduplicated": True} for item in first]


def test_a_deduplication_id_may_be_long(shared: Relay) -> None:
    headers = FAR | {"Upstash-Deduplication-Id": secrets.token_hex(5000)}
    answers = [shared.call("POST", f"/v2/publish/{AT}", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 202], answers[0].text


def test_enqueue_creates_the_queue(shared: Relay) -> None:
    with destination() as server:
        answer = shared.call("POST", f"/v2/enqueue/made.by-enqueue/{server.url}/x?y=1", data="b")
        assert (answer.status_code, list(answer.json())) == (200, ["messageId"])
        [received] = until(lambda: server.received)
    assert received.path == "/x?y=1"
    queue = shared.call("GET", "/v2/queues/made.by-enqueue").json()
    assert (queue["name"], queue["parallelism"], queue["paused"]) == ("made.by-enqueue", 1, False)


def test_options_may_be_in_the_query_with_the_token(shared: Relay) -> None:
    with destination() as server:
        url = (
            f"{shared.url}/v2/publish/{server.url}/hook?upstash-retries=3&a=1&upstash-forward-x=y&qstash_token={TOKEN}"
        )
        # Sent by another service's webhook, with its own Authorization.
        answer = requests.post(
            f"{url}&upstash-header-forward=true&b=%2F",
            data="b",
            headers={"Authorization": "Bearer of-the-hook", "X-Event": "push"},
            timeout=10,
        )
        assert answer.status_code == 200, answer.text
        [received] = until(lambda: server.received)
    assert received.path == "/hook?a=1&b=%2F"
    assert (received.headers["X"], received.headers["X-Event"]) == ("y", "push")
    assert received.headers["Authorization"] == "Bearer of-the-hook"


def test_a_doubled_path_is_tolerated(shared: Relay) -> None:
    answer = shared.call("POST", f"/v2/publish/v2/publish/{AT}", headers=FAR)
    shown = shared.call("GET", f"/v2/publish/v2/messages/{answer.json()['messageId']}")
    assert shown.json()["url"] == AT


def test_a_batch_has_an_answer_for_each_item_in_its_order(shared: Relay) -> None:
    group(shared, "batched", f"{AT}1", f"{AT}2")
    items: list[dict[str, Any]] = [
        {"destination": AT, "headers": FAR, "body": "x"},
        {"destination": AT, "headers": None, "body": None, "queue": "of-batch"},
        {"destination": AT, "headers": {"Upstash-Retries": "many"}},
        {"destination": "batched", "headers": FAR | {"Upstash-Retries": 2}},
        {"destination": "no-such-group"},
        {"destination": "api/llm"},
        {"destination": AT, "headers": FAR, "queue": "of-batch"},
    ]
    answer = shared.call("POST", "/v2/batch", json=items)
    assert answer.status_code == 200
    answers = answer.json()
    assert [type(item) for item in answers] == [dict, dict, dict, list, dict, dict, dict]
    assert [list(item) for item in answers if isinstance(item, dict)] == [
        ["messageId"], ["messageId"], ["error"], ["error"], ["error"], ["error"]
    ]  # fmt: skip
    assert "Upstash-Retries" in answers[2]["error"]
    assert [item["url"] for item in answers[3]] == [f"{AT}1", f"{AT}2"]
    assert "no-such-group" in answers[4]["error"]
    assert "api/llm" in answers[5]["error"]
    assert "Upstash-Delay" in answers[6]["error"]
    assert shared.call("GET", f"/v2/messages/{answers[3][0]['messageId']}").json()["maxRetries"] == 2
    assert shared.call("GET", "/v2/queues/of-batch").status_code == 200


def test_two_equal_ids_in_one_batch_are_one_message(shared: Relay) -> None:
    item = {"destination": AT, "headers": FAR | {"Upstash-Deduplication-Id": "in-batch"}}
    first, second = shared.call("POST", "/v2/batch", json=[item, item]).json()
    assert second == first | {"deduplicated": True}


MALFORMED: list[tuple[str, str]] = [
    ("", "not JSON"),
    ("[{]", "not JSON"),
    ("{}", "array"),
    ("[]", "1 to 1000"),
    ('[{"destination":"https://a.example"},"text"]', "message 1"),
    ('[{"body":"x"}]', "destination of message 0"),
    ('[{"destination":7}]', "destination of message 0"),
    ('[{"destination":"https://a.example","body":{}}]', "body of message 0"),
    ('[{"destination":"https://a.example","headers":[]}]', "headers of message 0"),
    ('[{"destination":"https://a.example","headers":{"X":{}}}]', "header 'X' of message 0"),
    ('[{"destination":"https://a.example","queue":1}]', "queue of message 0"),
    ("[" + ",".join(['{"destination":"https://a.example"}'] * 1001) + "]", "1 to 1000"),
]


def test_a_malformed_batch_is_refused_completely(shared: Relay) -> None:
    for body, words in MALFORMED:
        answer = shared.call("POST", "/v2/batch", data=body)
        assert answer.status_code == 400, (body[:100], answer.text)
        assert words in answer.json()["error"], (body[:100], answer.text)


REFUSED: list[tuple[str, dict[str, str], str]] = [
    ("ftp://a.example", {}, "scheme"),
    ("https://", {}, "scheme"),
    ("no-group", {}, "no URL group 'no-group'"),
    ("https://user:pw@a.example", {}, "user or password"),
    ("api/llm", {}, "api/llm is not offered"),
    ("api/email", {}, "api/email is not offered"),
    (AT, {"Upstash-Method": "BREW"}, "method"),
    (AT, {"Upstash-Retries": "-1"}, "Upstash-Retries"),
    (AT, {"Upstash-Retries": "1.5"}, "Upstash-Retries"),
    (AT, {"Upstash-Delay": "soon"}, "Upstash-Delay"),
    (AT, {"Upstash-Delay": "400d"}, "Upstash-Delay"),
    (AT, {"Upstash-Not-Before": "tomorrow"}, "Upstash-Not-Before"),
    (AT, {"Upstash-Timeout": "long"}, "Upstash-Timeout"),
    (AT, {"Upstash-Retry-Delay": "__import__('os')"}, "Upstash-Retry-Delay"),
    (AT, {"Upstash-Retry-Delay": "1000 *"}, "Upstash-Retry-Delay"),
    (AT, {"Upstash-Callback": "ftp://c.example"}, "Upstash-Callback"),
    (AT, {"Upstash-Failure-Callback": "file:///etc/passwd"}, "Upstash-Failure-Callback"),
    (AT, {"Upstash-Callback": "https://c.example", "Upstash-Callback-Retries": "x"}, "Upstash-Callback-Retries"),
    (AT, {"Upstash-Deduplication-Id": "a:b"}, "DeduplicationId cannot contain ':'"),
    (AT, {"Upstash-Deduplication-Id": "a b"}, "white space"),
    (AT, {"Upstash-Flow-Control-Key": "k"}, "Upstash-Flow-Control-Value"),
    (AT, {"Upstash-Flow-Control-Value": "rate=1"}, "Upstash-Flow-Control-Key"),
    (AT, {"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": "rate=0"}, "rate"),
    (AT, {"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": "speed=1"}, "either rate=X"),
    (AT, {"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": "rate=1, period=8d"}, "period"),
    (AT, {"Upstash-Redact-Fields": "everything"}, "Upstash-Redact-Fields"),
    (AT, {"Upstash-Cron": "* * * * *"}, "/v2/schedules"),
    (AT, {"Tidings-On-Unknown": "pray"}, "Tidings-On-Unknown"),
    (AT, {"Tidings-Final-Status": "teapot"}, "Tidings-Final-Status"),
    (AT, {"Upstash-Label": ",".join(f"l{n}" for n in range(51))}, "Upstash-Label"),
    (AT, {"Upstash-Label": secrets.token_hex(5000)}, "Upstash-Label"),
]


def test_each_bad_option_is_400_with_its_name(shared: Relay) -> None:
    for address, headers, words in REFUSED:
        answer = shared.call("POST", f"/v2/publish/{address}", data="x", headers=headers)
        assert answer.status_code == 400, (address, headers, answer.text)
        assert list(answer.json()) == ["error"]
        assert words in answer.json()["error"], (address, headers, answer.text)


@pytest.mark.parametrize("header", ["Upstash-Delay", "Upstash-Not-Before"])
def test_a_delay_on_enqueue_is_refused(shared: Relay, header: str) -> None:
    answer = shared.call("POST", f"/v2/enqueue/q/{AT}", headers={header: "1800000000"})
    assert answer.status_code == 400
    assert f"{header} is not supported on enqueue" in answer.json()["error"]


def test_an_invalid_queue_name_is_refused(shared: Relay) -> None:
    answer = shared.call("POST", f"/v2/enqueue/not%20a%20name/{AT}")
    assert (answer.status_code, "queue name" in answer.json()["error"]) == (400, True)


def test_a_body_over_the_limit_is_413(new_relay: Any) -> None:
    relay = new_relay(RELAY_BODY_BYTES_MAX="2048")
    assert relay.call("POST", f"/v2/publish/{AT}", data=b"x" * 2048, headers=FAR).status_code == 200
    for path in (f"/v2/publish/{AT}", "/v2/batch", "/v2/queues", f"/v2/schedules/{AT}"):
        answer = relay.call("POST", path, data=b"x" * 2049)
        assert (answer.status_code, "larger than 2048" in answer.json()["error"]) == (413, True), path


def test_the_first_version_answers_201_and_creates_schedules(shared: Relay) -> None:
    published = shared.call("POST", f"/v1/publish/{AT}", data="x", headers=FAR)
    assert (published.status_code, list(published.json())) == (201, ["messageId"])
    scheduled = shared.call("POST", f"/v1/publish/{AT}", data="x", headers={"Upstash-Cron": "0 0 1 1 *"})
    assert (scheduled.status_code, list(scheduled.json())) == (201, ["scheduleId"])
    schedule_id = scheduled.json()["scheduleId"]
    assert shared.call("GET", f"/v1/schedules/{schedule_id}").json()["cron"] == "0 0 1 1 *"
    again = FAR | {"Upstash-Deduplication-Id": "v1"}
    statuses = [shared.call("POST", f"/v1/publish/{AT}", headers=again).status_code for _ in range(2)]
    assert statuses == [201, 202]
