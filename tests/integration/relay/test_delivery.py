"""The relay from outside: published messages arrive, are retried, call back, and survive a crash."""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import requests
from qstash import Receiver

from stack.ports import free_ports
from tests.destination import Destination, Received, Reply, destination
from tests.integration.relay.conftest import CURRENT_KEY, NEXT_KEY, Relay
from tests.wait import until


def callbacks(server: Destination, path: str = "/callback") -> list[dict[str, object]]:
    return [json.loads(received.body) for received in server.to(path)]


def test_the_articles_curl_works_as_printed(new_relay: Callable[..., Relay]) -> None:
    with destination(lambda _: Reply(body=b'{"data":[{"url":"https://images/1.png"}]}')) as server:
        relay = new_relay(RELAY_DESTINATION_MAP=f"https://api.openai.com={server.url},https://myapp.com={server.url}")
        answer = requests.post(
            f"{relay.url}/v1/publish/https://api.openai.com/v1/images/generations",
            data='{ "prompt": "some prompt" }',
            headers={
                "Authorization": "Bearer relay-token",
                "Upstash-Forward-My-Custom-Header": "my-value",
                "Upstash-forward-Authorization": "Bearer OPENAI_API_KEY",
                "Content-type": "application/json",
                "Upstash-Callback": "myapp.com/callback",
                "Upstash-Retries": "3",
            },
            timeout=10,
        )
        assert answer.status_code == 201
        [called_back] = until(lambda: server.to("/callback"))
        [called] = server.to("/v1/images/generations")
    assert called.body == b'{ "prompt": "some prompt" }'
    assert called.headers["Authorization"] == "Bearer OPENAI_API_KEY"
    assert called.headers["My-Custom-Header"] == "my-value"
    assert called.headers["Host"] == "api.openai.com"
    assert not [name for name in called.headers if name.lower().startswith("upstash")]
    content = json.loads(called_back.body)
    assert content["sourceMessageId"] == answer.json()["messageId"]
    assert content["status"] == 200
    assert base64.b64decode(content["body"]) == b'{"data":[{"url":"https://images/1.png"}]}'
    assert content["header"] == content["headers"]
    Receiver(CURRENT_KEY, NEXT_KEY).verify(
        signature=called_back.headers["Upstash-Signature"],
        body=called_back.body.decode(),
        url="https://myapp.com/callback",
    )


@pytest.mark.parametrize("path", ["/a//b", "/a%2Fb?x=1&y=%20z", "/?upstream=http://other/x"])
def test_the_destinations_raw_address_arrives(relay: Relay, path: str) -> None:
    with destination() as server:
        assert relay.publish(server.url + path, "x").status_code == 200
        [received] = until(lambda: server.received)
    assert received.path == path


def test_two_failures_then_success_make_three_attempts_and_three_callbacks(relay: Relay) -> None:
    statuses = iter([500, 500, 200])

    def answer(received: Received) -> Reply:
        return Reply(next(statuses)) if received.path == "/work" else Reply()

    with destination(answer) as server:
        published = relay.publish(
            f"{server.url}/work",
            "x",
            Upstash_Callback=f"{server.url}/callback",
            Upstash_Failure_Callback=f"{server.url}/failure",
            Upstash_Retries="3",
            Upstash_Retry_Delay="50 * pow(2, retried)",
        )
        until(lambda: len(server.to("/callback")) == 3)
        found = sorted(callbacks(server), key=lambda content: int(str(content["retried"])))
        assert [(content["status"], content["retried"], content["willRetry"]) for content in found] == [
            (500, 0, True),
            (500, 1, True),
            (200, 2, False),
        ]
        until(lambda: relay.state(published.json()["messageId"]) == "delivered")
        assert len(server.to("/work")) == 3
        assert server.to("/failure") == []


def test_an_answer_with_a_header_in_latin_1_is_delivered_and_shown(relay: Relay) -> None:
    named = {"Content-Disposition": 'attachment; filename="café.png"'}
    with destination(lambda call: Reply(headers=named if call.path == "/work" else {})) as server:
        published = relay.publish(f"{server.url}/work", "x", Upstash_Callback=f"{server.url}/callback")
        until(lambda: server.to("/callback"))
        [content] = callbacks(server)
        header: Any = content["header"]
        assert (content["status"], header["Content-Disposition"]) == (200, [named["Content-Disposition"]])
        assert relay.state(published.json()["messageId"]) == "delivered"


def test_exhausted_retries_call_the_failure_callback_with_the_dead_letter(relay: Relay) -> None:
    with destination(lambda received: Reply(503 if received.path == "/work" else 200, b"down")) as server:
        relay.publish(
            f"{server.url}/work",
            Upstash_Failure_Callback=f"{server.url}/failure",
            Upstash_Retries="1",
            Upstash_Retry_Delay="10",
        )
        [failure] = until(lambda: callbacks(server, "/failure"))
    assert failure["status"] == 503
    assert failure["retried"] == failure["maxRetries"] == 1
    assert failure["dlqId"]


@pytest.mark.parametrize(
    ("reply", "headers"),
    [
        (Reply(400), {"Tidings_Final_Status": "400,401"}),
        (Reply(489, headers={"Upstash-NonRetryable-Error": "true"}), {}),
        (Reply(429, b'{"error":{"code":"insufficient_quota"}}'), {"Tidings_Final_Error": "insufficient_quota"}),
    ],
)
def test_a_final_answer_ends_the_message_at_once(relay: Relay, reply: Reply, headers: dict[str, str]) -> None:
    with destination(lambda received: reply if received.path == "/work" else Reply()) as server:
        published = relay.publish(
            f"{server.url}/work",
            Upstash_Callback=f"{server.url}/callback",
            Upstash_Retry_Delay="10",
            version="2",
            **headers,
        )
        [content] = until(lambda: callbacks(server))
        assert content["willRetry"] is False
        until(lambda: relay.state(published.json()["messageId"]) == "failed")
        assert len(server.to("/work")) == 1


def test_a_success_with_an_error_in_it_is_retried_when_the_message_says_so(relay: Relay) -> None:
    bodies = iter([b'{"error":{"message":"overloaded"}}', b'{"data":[]}'])
    with destination(lambda _: Reply(200, next(bodies))) as server:
        published = relay.publish(server.url, Tidings_Error_Field="error", Upstash_Retry_Delay="10")
        until(lambda: relay.state(published.json()["messageId"]) == "delivered")
        assert len(server.received) == 2


def test_retry_after_is_obeyed(relay: Relay) -> None:
    replies = iter([Reply(429, headers={"Retry-After": "1"}), Reply()])
    with destination(lambda _: next(replies)) as server:
        relay.publish(server.url)
        until(lambda: len(server.received) == 2)
        first, second = server.received
    # Without the header the first retry comes after 12 s or more.
    assert 0.95 <= second.at - first.at < 11


def test_the_same_deduplication_id_is_delivered_once(relay: Relay) -> None:
    with destination() as server:
        first = relay.publish(server.url, Upstash_Deduplication_Id="once")
        second = relay.publish(server.url, Upstash_Deduplication_Id="once")
        assert (first.status_code, second.status_code) == (200, 202)
        assert second.json() == {"messageId": first.json()["messageId"], "deduplicated": True}
        until(lambda: relay.state(first.json()["messageId"]) == "delivered")
        assert len(server.received) == 1


def test_a_batch_reports_the_faulty_item_and_sends_the_others(relay: Relay) -> None:
    items: list[dict[str, object]] = [
        {"destination": "ftp://x/y", "headers": None, "body": None, "queue": None},
    ]
    with destination() as server:
        items.append({"destination": server.url, "headers": {"Upstash-Method": "PUT"}, "body": "hello"})
        answer = relay.session.post(f"{relay.url}/v2/batch", json=items, timeout=10)
        assert answer.status_code == 200
        assert ["error" in item for item in answer.json()] == [True, False]
        [received] = until(lambda: server.received)
    assert (received.method, received.body) == ("PUT", b"hello")


def test_cancelling_a_waiting_message_prevents_its_delivery(relay: Relay) -> None:
    with destination() as server:
        message_id = relay.publish(server.url, Upstash_Delay="3s").json()["messageId"]
        answer = relay.session.delete(f"{relay.url}/v2/messages/{message_id}", timeout=10)
        assert (answer.status_code, answer.json()) == (202, {"cancelled": 1})
        later = relay.publish(f"{server.url}/later", Upstash_Delay="3200ms").json()["messageId"]
        until(lambda: relay.state(later) == "delivered")
        assert [received.path for received in server.received] == ["/later"]


@pytest.mark.parametrize("other_process", [False, True])
def test_cancelling_aborts_the_call(new_relay: Callable[..., Relay], other_process: bool) -> None:
    holder = new_relay()
    with destination(lambda received: Reply(delay_seconds=60 if received.path == "/slow" else 0)) as server:
        holder.publish(f"{server.url}/slow", Upstash_Label="mine", Upstash_Callback=f"{server.url}/callback")
        until(lambda: server.to("/slow"))
        asked = new_relay() if other_process else holder
        answer = asked.session.delete(f"{asked.url}/v2/messages?label=mine", timeout=10)
        assert answer.json()["cancelled"] == 1
        until(lambda: "relay_in_flight 0.0" in requests.get(f"{holder.url}/metrics", timeout=30).text)
        assert server.to("/callback") == []


def test_a_killed_relay_loses_no_accepted_message(new_relay: Callable[..., Relay]) -> None:
    first = new_relay(RELAY_LEASE_SECONDS="3")
    with destination(lambda received: Reply(delay_seconds=60 if len(server.received) <= 20 else 0)) as server:
        ids = [first.publish(f"{server.url}/{n}").json()["messageId"] for n in range(20)]
        until(lambda: len(server.received) == 20)
        assert first.process.kill() == -signal.SIGKILL
        second = new_relay(RELAY_LEASE_SECONDS="3")
        until(lambda: all(second.state(message_id) == "delivered" for message_id in ids), 20)
        assert len({received.path for received in server.received}) == 20
        until(lambda: "relay_unknown_fates_total 20.0" in requests.get(f"{second.url}/metrics", timeout=30).text)


def test_an_unknown_fate_ends_the_message_when_it_says_so(new_relay: Callable[..., Relay]) -> None:
    first = new_relay(RELAY_LEASE_SECONDS="3")
    with destination(lambda received: Reply(delay_seconds=60 if received.path == "/work" else 0)) as server:
        first.publish(f"{server.url}/work", Tidings_On_Unknown="fail", Upstash_Failure_Callback=f"{server.url}/failure")
        until(lambda: server.to("/work"))
        first.process.kill()
        new_relay(RELAY_LEASE_SECONDS="3")
        [failure] = until(lambda: callbacks(server, "/failure"))
        assert "fate unknown" in str(failure["error"])
        assert len(server.to("/work")) == 1


def test_a_connection_lost_after_sending_is_an_unknown_fate_and_not_repeated_when_the_message_says_so(
    relay: Relay,
) -> None:
    with destination(lambda received: Reply(0 if received.path == "/work" else 200)) as server:
        relay.publish(
            f"{server.url}/work",
            Tidings_On_Unknown="fail",
            Upstash_Retry_Delay="10",
            Upstash_Failure_Callback=f"{server.url}/failure",
        )
        [failure] = until(lambda: callbacks(server, "/failure"))
        assert (failure["fate"], failure["retried"]) == ("unknown", 0)
        assert len(server.to("/work")) == 1
        until(lambda: "relay_unknown_fates_total 1.0" in requests.get(f"{relay.url}/metrics", timeout=30).text)


def test_a_message_that_was_not_sent_is_retried_also_when_unknown_fates_are_not(relay: Relay) -> None:
    [closed] = free_ports(1)
    with destination() as server:
        relay.publish(
            f"http://127.0.0.1:{closed}/work",
            Tidings_On_Unknown="fail",
            Upstash_Retries="1",
            Upstash_Retry_Delay="10",
            Upstash_Callback=f"{server.url}/callback",
        )
        until(lambda: len(server.to("/callback")) == 2)
        assert {content["fate"] for content in callbacks(server)} == {"not sent"}


def test_sigterm_lets_calls_in_flight_finish(new_relay: Callable[..., Relay]) -> None:
    relay = new_relay(RELAY_DRAIN_SECONDS="10")
    with destination(lambda _: Reply(delay_seconds=1)) as server:
        message_id = relay.publish(server.url).json()["messageId"]
        until(lambda: server.received)
        assert relay.process.stop() == 0
        assert new_relay().state(message_id) == "delivered"
        assert len(server.received) == 1


def test_private_addresses_are_refused_unless_permitted(new_relay: Callable[..., Relay]) -> None:
    relay = new_relay(RELAY_ALLOW_PRIVATE="")

    def failed(message_id: str) -> bool:
        return relay.state(message_id) == "failed"

    with destination() as server:
        for host in ("127.0.0.1", "localhost", "2130706433", "127.1"):
            url = server.url.replace("127.0.0.1", host)
            message_id = relay.publish(url, Upstash_Retries="0").json()["messageId"]
            until(partial(failed, message_id))
        assert server.received == []


def test_a_message_for_public_addresses_does_not_reach_the_allowed_private_ones(relay: Relay) -> None:
    with destination() as server:
        headers = {"Tidings-Addresses": "public", "Upstash-Retries": "0", "Upstash-Callback": f"{server.url}/callback"}
        # The query of the destination does not override the sender's header.
        item = {"destination": f"{server.url}/hook?Tidings-Addresses=allowed", "headers": headers, "body": "x"}
        [answer] = relay.call("POST", "/v2/batch", json=[item]).json()
        until(lambda: relay.state(answer["messageId"]) == "failed")
        [told] = until(lambda: callbacks(server))
        assert "Tidings-Addresses" in str(told["error"])
        [letter] = relay.call("GET", f"/v2/dlq?messageId={answer['messageId']}").json()["messages"]
        again = relay.call("POST", f"/v2/dlq/retry/{letter['dlqId']}").json()["messageId"]
        until(lambda: relay.state(again) == "failed")
        assert server.to("/hook") == []
        assert relay.publish(f"{server.url}/hook").ok
        until(lambda: server.to("/hook"))


def test_no_token_or_a_wrong_one_is_401(relay: Relay) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic relay-token"}):
        answer = requests.post(f"{relay.url}/v2/publish/http://x.example", headers=headers, timeout=5)
        assert (answer.status_code, list(answer.json())) == (401, ["error"])


def test_forwarded_headers_are_not_readable_in_the_database(relay: Relay) -> None:
    message_id = relay.publish(
        "https://example.com", Upstash_Delay="1h", Upstash_Forward_Authorization="Bearer very-secret"
    ).json()["messageId"]
    message = relay.message(message_id)
    assert message is not None
    assert message["header"]["Authorization"][0].startswith("REDACTED:")


def test_an_address_with_characters_that_no_uri_has_is_the_same_in_request_signature_callback_and_filters(
    shared: Relay,
) -> None:
    written, encoded = "/café/хук?q={ü}&r=%2F", "/caf%C3%A9/%D1%85%D1%83%D0%BA?q=%7B%C3%BC%7D&r=%2F"
    with destination() as server:
        once = {"Upstash-Callback": f"{server.url}/zurück", "Upstash-Content-Based-Deduplication": "true"}
        items = [{"destination": server.url + path, "headers": once} for path in (written, encoded)]
        answers = shared.call("POST", "/v2/batch", json=items).json()
        assert answers[1] == answers[0] | {"deduplicated": True}
        group = {"endpoints": [{"url": server.url + "/über"}]}
        assert shared.call("POST", "/v2/topics/unicode/endpoints", json=group).status_code == 200
        assert shared.call("POST", "/v2/publish/unicode").status_code == 200
        [called] = until(lambda: server.to(encoded.partition("?")[0]))
        assert called.path == encoded
        [called_back] = until(lambda: server.to("/zur%C3%BCck"))
        until(lambda: server.to("/%C3%BCber"))
    for received, path in ((called, encoded), (called_back, "/zur%C3%BCck")):
        signature = received.headers["Upstash-Signature"]
        Receiver(CURRENT_KEY, NEXT_KEY).verify(
            signature=signature, body=received.body.decode(), url=f"{server.url}{path}"
        )
    assert json.loads(called_back.body)["url"] == server.url + encoded
    for path in (written, encoded):
        found = shared.call("GET", "/v2/events", params={"url": server.url + path, "state": "CREATED"}).json()["events"]
        assert [event["messageId"] for event in found] == [answers[0]["messageId"]]
    assert shared.call("GET", "/v2/events", params={"path": "/über", "state": "CREATED"}).json()["events"]
    assert shared.call("DELETE", "/v2/topics/unicode/endpoints", json=group).status_code == 200
    assert shared.call("GET", "/v2/topics/unicode").status_code == 404
