"""The relay reports the start of an attempt (`Tidings-Started-Callback`) without an effect on attempts and other
notices.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
from qstash import Receiver

from tests.destination import Destination, Received, Reply, destination
from tests.integration.relay.conftest import CURRENT_KEY, NEXT_KEY, Relay
from tests.wait import until

# Longer than every wait of these tests, so a test that waits for it fails.
FOR_EVER = 300.0


def told(server: Destination, path: str = "/starts") -> list[dict[str, Any]]:
    """All reported starts of all requests."""
    return [start for received in server.to(path) for start in json.loads(received.body)["starts"]]


def counted(relay: Relay, outcome: str) -> float:
    """The number of starts reported to this path."""
    name = f'relay_start_notices_total{{outcome="{outcome}"}} '
    text = requests.get(f"{relay.url}/metrics", timeout=10).text
    return next((float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name)), 0.0)


def holding(received: Received) -> Reply:
    """Hold `/work`, and answer all other requests."""
    return Reply(delay_seconds=FOR_EVER if received.path.startswith("/work") else 0.0)


def test_a_start_is_reported_while_the_destination_works(shared: Relay) -> None:
    with destination(holding) as server:
        before = int(time.time() * 1000)
        published = shared.publish(
            f"{server.url}/work",
            "x",
            Upstash_Label="mine",
            Tidings_Started_Callback=f"{server.url}/starts?a=1",
            Tidings_Started_Data="opaque",
        )
        [start] = until(lambda: told(server))
        started_at = start.pop("startedAt")
        id_ = published.json()["messageId"]
        assert start == {"messageId": id_, "label": "mine", "retried": 0, "data": "opaque"}
        assert before - 60_000 < started_at < before + 60_000
        [notice] = server.to("/starts")
        assert (notice.method, notice.headers["Content-Type"]) == ("POST", "application/json")
        Receiver(CURRENT_KEY, NEXT_KEY).verify(
            signature=notice.headers["Upstash-Signature"],
            body=notice.body.decode(),
            url=f"{server.url}/starts?a=1",
        )
        [work] = until(lambda: server.to("/work"))
        assert not [name for name in work.headers if name.lower().startswith("tidings")]
        # A reader of the message does not see the data, which may be a token.
        assert "opaque" not in shared.call("GET", f"/v2/messages/{id_}").text
        assert "opaque" not in shared.call("GET", f"/v2/events?messageIds={id_}").text
        assert shared.call("DELETE", f"/v2/messages/{id_}").status_code == 202


def test_each_start_is_reported_with_the_number_and_the_time_of_its_callback(shared: Relay) -> None:
    # The first attempts are held until their starts are reported: the start of an ended attempt is not reported.
    def answer(received: Received) -> Reply:
        if received.path == "/work":
            retried = int(received.headers["Upstash-Retried"])
            until(lambda: len(told(server)) == retried + 1)
            return Reply(500 if retried < 2 else 200)
        return Reply()

    with destination(answer) as server:
        shared.publish(
            f"{server.url}/work",
            Upstash_Retry_Delay="10",
            Upstash_Callback=f"{server.url}/callback",
            Tidings_Started_Callback=f"{server.url}/starts",
        )
        until(lambda: len(server.to("/callback")) == 3)
        ended = [json.loads(received.body) for received in server.to("/callback")]
        assert [start["retried"] for start in told(server)] == [0, 1, 2]
        assert {start["retried"]: start["startedAt"] for start in told(server)} == {
            content["retried"]: content["startedAt"] for content in ended
        }


def test_without_the_header_no_start_is_reported(shared: Relay) -> None:
    with destination() as server:
        shared.publish(f"{server.url}/quiet", Upstash_Callback=f"{server.url}/callback")
        until(lambda: server.to("/callback"))
        # A later message with the header is reported. A report of the former would have come before it.
        server.answer = holding
        shared.publish(f"{server.url}/work", Tidings_Started_Callback=f"{server.url}/starts", Upstash_Label="asks")
        until(lambda: told(server))
        assert [start["label"] for start in told(server)] == ["asks"]


def test_starts_during_a_request_are_reported_together_in_the_next_one(shared: Relay) -> None:
    released = threading.Event()

    def answer(received: Received) -> Reply:
        if received.path == "/starts":
            released.wait(60)
        return holding(received)

    def message(number: int) -> dict[str, Any]:
        headers = {"Upstash-Label": str(number), "Tidings-Started-Callback": f"{server.url}/starts"}
        return {"destination": f"{server.url}/work/{number}", "headers": headers}

    with destination(answer) as server:
        assert shared.call("POST", "/v2/batch", json=[message(0)]).status_code == 200
        until(lambda: server.to("/starts"))
        assert shared.call("POST", "/v2/batch", json=[message(number) for number in range(1, 21)]).status_code == 200
        until(lambda: len([received for received in server.received if received.path.startswith("/work")]) == 21)
        released.set()
        # All but the first; or most of them, if this took longer than a request may.
        until(lambda: any(len(json.loads(received.body)["starts"]) > 10 for received in server.to("/starts")))


def test_a_notice_that_fails_is_repeated(shared: Relay) -> None:
    statuses = iter([503, 0, 429])

    def answer(received: Received) -> Reply:
        return Reply(next(statuses, 200)) if received.path == "/starts" else holding(received)

    with destination(answer) as server:
        shared.publish(f"{server.url}/work", Tidings_Started_Callback=f"{server.url}/starts")
        until(lambda: len(server.to("/starts")) == 4)
        assert len({start["messageId"] for start in told(server)}) == 1


def test_a_notice_that_is_refused_is_not_repeated(new_relay: Callable[..., Relay]) -> None:
    with destination(lambda received: Reply(404) if received.path == "/starts" else holding(received)) as server:
        relay = new_relay()
        relay.publish(f"{server.url}/work", Tidings_Started_Callback=f"{server.url}/starts")
        until(lambda: counted(relay, "refused") == 1)
        assert len(server.to("/starts")) == 1


@pytest.mark.parametrize("address", ["http://10.1.2.3/starts", "http://metadata.test:1/starts"])
def test_an_address_that_may_not_be_called_gets_no_notice(new_relay: Callable[..., Relay], address: str) -> None:
    with destination(holding) as server:
        relay = new_relay(RELAY_THIRD_PARTIES="metadata.test", RELAY_ALLOW_HOSTS="metadata.test")
        published = relay.publish(f"{server.url}/work", Tidings_Started_Callback=address)
        until(lambda: counted(relay, "refused") == 1)
        assert relay.state(published.json()["messageId"]) == "active"


def test_an_address_that_does_not_answer_affects_no_attempt_and_no_other_address(
    new_relay: Callable[..., Relay],
) -> None:
    def answer(received: Received) -> Reply:
        return Reply(delay_seconds=FOR_EVER if received.path in {"/dead", "/work/alive"} else 0.0)

    with destination(answer) as server:
        relay = new_relay()
        for number in range(30):
            relay.publish(
                f"{server.url}/work/{number}",
                Tidings_Started_Callback=f"{server.url}/dead",
                Upstash_Callback=f"{server.url}/callback",
            )
        until(lambda: len(server.to("/callback")) == 30)
        # The request to the address that does not answer is still in progress.
        assert len(server.to("/dead")) >= 1
        relay.publish(
            f"{server.url}/work/alive", Upstash_Label="alive", Tidings_Started_Callback=f"{server.url}/starts"
        )
        until(lambda: [start["label"] for start in told(server)] == ["alive"])


def test_starts_that_cannot_be_reported_are_given_up_and_counted(new_relay: Callable[..., Relay]) -> None:
    with destination(lambda received: Reply(503) if received.path == "/starts" else holding(received)) as server:
        relay = new_relay()
        relay.publish(f"{server.url}/work", Tidings_Started_Callback=f"{server.url}/starts")
        until(lambda: counted(relay, "dropped") == 1, 60)
        assert 2 <= len(server.to("/starts")) < 20


def test_notices_in_progress_do_not_delay_the_end_of_the_process(new_relay: Callable[..., Relay]) -> None:
    with destination(lambda received: Reply(delay_seconds=FOR_EVER)) as server:
        relay = new_relay(RELAY_DRAIN_SECONDS="60")
        published = relay.publish(f"{server.url}/work", Tidings_Started_Callback=f"{server.url}/starts")
        until(lambda: server.to("/starts") and server.to("/work"))
        relay.call("DELETE", f"/v2/messages/{published.json()['messageId']}")
        begun = time.monotonic()
        assert relay.process.stop() == 0
        assert time.monotonic() - begun < 60, "it waited for the drain time"
        assert "Traceback" not in relay.process.log.read_text()
        assert "never retrieved" not in relay.process.log.read_text()


def test_the_retry_of_a_dead_letter_is_reported_too(shared: Relay) -> None:
    def answer(received: Received) -> Reply:
        return Reply(400) if received.path == "/work" and received.body == b"first" else holding(received)

    with destination(answer) as server:
        published = shared.publish(
            f"{server.url}/work",
            "first",
            Upstash_Retries="0",
            Tidings_Started_Callback=f"{server.url}/starts",
            Tidings_Started_Data="kept",
        )
        id_ = published.json()["messageId"]
        [letter] = until(lambda: shared.call("GET", f"/v2/dlq?messageIds={id_}").json()["messages"])
        server.received.clear()
        server.answer = holding
        assert shared.call("POST", f"/v2/dlq/retry/{letter['dlqId']}").status_code == 201
        [start] = until(lambda: [start for start in told(server) if start["messageId"] != id_])
        assert (start["retried"], start["data"]) == (0, "kept")
