"""Messages over HTTP: shown until after their end, and cancelled singly, by ids and by filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.destination import Reply, destination
from tests.integration.relay.conftest import Relay
from tests.wait import until

FAR = {"Upstash-Delay": "1h"}
AT = "http://127.0.0.1:9/x"


def waiting(relay: Relay, url: str = AT, **headers: str) -> str:
    """Publish a message that waits for an hour."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = relay.call("POST", f"/v2/publish/{url}", data="x", headers=FAR | named)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["messageId"])


def alive(relay: Relay, ids: list[str]) -> list[str]:
    return [id_ for id_ in ids if relay.message(id_) is not None]


def test_a_message_is_shown_with_its_options_and_the_reason_why_it_waits(shared: Relay) -> None:
    id_ = waiting(
        shared,
        Upstash_Method="PUT",
        Upstash_Retries="5",
        Upstash_Forward_test_header="v",
        Upstash_Label="a, b",
        Upstash_Callback="https://c.example/cb",
        Upstash_Flow_Control_Key="k",
        Upstash_Flow_Control_Value="parallelism=2",
    )
    shown: dict[str, Any] = shared.call("GET", f"/v2/messages/{id_}").json()
    assert {name: shown.get(name) for name in ("messageId", "url", "method", "maxRetries", "body", "callback")} == {
        "messageId": id_,
        "url": AT,
        "method": "PUT",
        "maxRetries": 5,
        "body": "x",
        "callback": "https://c.example/cb",
    }
    assert shown["header"] == {"Test-Header": ["v"]}
    assert (shown["label"], shown["labels"]) == ("a", ["a", "b"])
    assert (shown["flowControlKey"], shown["parallelism"], shown["period"]) == ("k", 2, 1)
    assert "rate" not in shown
    assert shown["waiting"]["reason"] == "delay"
    assert shown["notBefore"] - shown["createdAt"] == pytest.approx(3_600_000, abs=1000)


def test_a_delivered_message_is_shown_for_some_time(shared: Relay) -> None:
    with destination() as server:
        id_ = shared.publish(server.url, "x").json()["messageId"]
        until(lambda: shared.state(id_) == "delivered")
        assert shared.call("DELETE", f"/v2/messages/{id_}").json() == {"cancelled": 0}


def test_an_unknown_message_is_404(shared: Relay) -> None:
    for method in ("GET", "DELETE"):
        answer = shared.call(method, "/v2/messages/msg_unknown")
        assert (answer.status_code, answer.json()) == (404, {"error": "message msg_unknown not found"})


def test_a_message_is_cancelled_and_gone(shared: Relay) -> None:
    id_ = waiting(shared)
    answer = shared.call("DELETE", f"/v2/messages/{id_}")
    assert (answer.status_code, answer.json()) == (202, {"cancelled": 1})
    assert shared.call("GET", f"/v2/messages/{id_}").status_code == 404


def test_a_repeated_cancellation_has_the_same_answer(new_relay: Callable[..., Relay]) -> None:
    """The first answer may be lost. After the message is deleted, it is unknown."""
    relay, forgetful = new_relay(), new_relay(RELAY_KEEP_SECONDS="0")
    id_ = waiting(relay)
    for _ in range(2):
        answer = relay.call("DELETE", f"/v2/messages/{id_}")
        assert (answer.status_code, answer.json()) == (202, {"cancelled": 1})
        legacy = relay.call("DELETE", f"/v1/messages/{id_}")
        assert (legacy.status_code, legacy.json()) == (202, {"status": "accepted"})
    assert relay.call("DELETE", "/v2/messages", json={"messageIds": [id_]}).json() == {"cancelled": 0}
    assert forgetful.call("DELETE", f"/v2/messages/{id_}").status_code == 404


def test_a_call_in_flight_is_aborted(shared: Relay) -> None:
    with destination(lambda _: Reply(delay_seconds=20)) as server:
        id_ = shared.publish(server.url, "x", Upstash_Callback=f"{server.url}/callback").json()["messageId"]
        until(lambda: server.received)
        assert shared.call("DELETE", f"/v2/messages/{id_}").json() == {"cancelled": 1}
        # The next message gets the place, and no callback of the first is sent before it.
        other = shared.publish(f"{server.url}/other", "x").json()["messageId"]
        until(lambda: server.to("/other"))
        assert server.to("/callback") == []
        assert shared.state(other) == "active"


@pytest.mark.parametrize("repeated", [False, True])
def test_ids_may_be_in_the_body_or_in_the_query(shared: Relay, repeated: bool) -> None:
    ids = [waiting(shared) for _ in range(4)]
    joined = "&messageIds=".join(ids[2:]) if repeated else ",".join(ids[2:])
    assert shared.call("DELETE", "/v2/messages", json={"messageIds": [*ids[:2], "msg_none"]}).json() == {"cancelled": 2}
    assert alive(shared, ids) == ids[2:]
    assert shared.call("DELETE", f"/v2/messages?messageIds={joined}").json() == {"cancelled": 2}
    assert alive(shared, ids) == []


def test_each_filter_selects_its_messages_and_no_others(relay: Relay) -> None:
    relay.call("POST", "/v2/topics/group/endpoints", json={"endpoints": [{"url": "http://127.0.0.1:9/of-group"}]})
    other = waiting(relay)
    schedule = relay.call("POST", f"/v2/schedules/{AT}", headers={"Upstash-Cron": "0 0 1 1 *"}).json()["scheduleId"]
    filters: dict[str, dict[str, Any]] = {
        "label=two": {"Upstash_Label": "one, two"},
        "flowControlKey=k": {"Upstash_Flow_Control_Key": "k", "Upstash_Flow_Control_Value": "rate=1"},
        "url=http://127.0.0.1:9/by-url": {"url": "http://127.0.0.1:9/by-url"},
        "host=localhost": {"url": "http://localhost:9/x"},
        "path=/by-path": {"url": "http://127.0.0.1:9/by-path?q=1"},
    }
    for query, asked in filters.items():
        id_ = waiting(relay, **asked)
        answer = relay.call("DELETE", f"/v2/messages?{query}")
        assert answer.json()["cancelled"] == 1, (query, answer.text)
        assert alive(relay, [id_, other]) == [other], query
    grouped = relay.call("POST", "/v2/publish/group", headers=FAR).json()
    assert relay.call("DELETE", "/v2/messages?topicName=group").json()["cancelled"] == 1
    assert alive(relay, [grouped[0]["messageId"], other]) == [other]
    relay.call("POST", "/v2/queues/q/pause")
    queued = relay.call("POST", f"/v2/enqueue/q/{AT}").json()["messageId"]
    assert relay.call("DELETE", "/v2/messages?queueName=q").json()["cancelled"] == 1
    assert alive(relay, [queued, other]) == [other]
    assert relay.call("DELETE", f"/v2/messages?scheduleId={schedule}").json()["cancelled"] == 0
    assert relay.call("DELETE", "/v2/messages?label=one&url=http://nowhere").json()["cancelled"] == 0
    assert relay.call("DELETE", "/v2/messages?callerIp=127.0.0.1&toDate=1").json()["cancelled"] == 0
    assert relay.call("DELETE", "/v2/messages?callerIp=127.0.0.1&fromDate=1").json()["cancelled"] == 1
    assert alive(relay, [other]) == []


def test_without_a_filter_everything_is_cancelled_only_with_consent(relay: Relay) -> None:
    ids = [waiting(relay) for _ in range(3)]
    refused = relay.call("DELETE", "/v2/messages")
    assert refused.status_code == 400
    assert "all=true" in refused.json()["error"]
    assert alive(relay, ids) == ids
    answer = relay.call("DELETE", "/v2/messages?all=true").json()
    assert answer["cancelled"] == 3
    action = relay.call("GET", f"/v2/bulkActions/{answer['actionId']}").json()
    assert (action["state"], action["total"], action["processed"]) == ("FINISHED", 3, 3)
    assert relay.call("GET", "/v2/bulkActions/unknown").status_code == 404
    again = waiting(relay)
    bare = relay.call("DELETE", "/v2/messages", headers={"User-Agent": "python-httpx/0.28"})
    assert bare.json()["cancelled"] == 1
    assert alive(relay, [again]) == []


def test_a_filter_matches_more_than_one_transaction_cancels_with_the_default_count_of_the_client(shared: Relay) -> None:
    items = [{"destination": AT, "headers": FAR | {"Upstash-Label": "many"}, "body": str(n)} for n in range(700)]
    published = shared.call("POST", "/v2/batch", json=items).json()
    assert shared.call("DELETE", "/v2/messages?label=many&count=100").json()["cancelled"] == 700
    assert alive(shared, [published[0]["messageId"], published[-1]["messageId"]]) == []


def test_a_count_other_than_the_clients_default_is_a_limit(shared: Relay) -> None:
    ids = [waiting(shared, Upstash_Label="counted") for _ in range(3)]
    assert shared.call("DELETE", "/v2/messages?label=counted&count=2").json()["cancelled"] == 2
    # The oldest are cancelled first.
    assert alive(shared, ids) == ids[2:]


def test_the_operator_may_refuse_the_clients_bare_request(new_relay: Callable[..., Relay]) -> None:
    relay = new_relay(RELAY_BULK_WITHOUT_FILTER="off")
    id_ = waiting(relay)
    assert relay.call("DELETE", "/v2/messages", headers={"User-Agent": "python-httpx/0.28"}).status_code == 400
    assert alive(relay, [id_]) == [id_]


def test_five_hundred_ids_fit_into_a_query(shared: Relay) -> None:
    ids = [waiting(shared), *(f"msg_{n:032x}" for n in range(499))]
    answer = shared.call("DELETE", "/v2/messages", params={"messageIds": ids})
    assert (answer.status_code, answer.text) == (200, '{"cancelled":1}')


def test_a_count_that_is_not_the_clients_default_bounds_a_cancellation(shared: Relay) -> None:
    items = [{"destination": AT, "headers": FAR | {"Upstash-Label": "few"}, "body": str(n)} for n in range(4)]
    shared.call("POST", "/v2/batch", json=items)
    answers = [shared.call("DELETE", f"/v2/messages?label=few&count={count}").json() for count in (1, 2, 100)]
    assert [answer["cancelled"] for answer in answers] == [1, 2, 1]
