"""The relay's messages and dead letters by label."""

from __future__ import annotations

from collections.abc import Callable

from services.reconciler.relay_client import RelayClient as Client
from tests.destination import Reply, destination
from tests.integration.relay.conftest import TOKEN, Relay
from tests.wait import until


def test_live_messages_and_dead_letters_of_callbacks_are_listed_by_label(new_relay: Callable[..., Relay]) -> None:
    relay = new_relay()
    client = Client(relay.url, TOKEN)
    with destination(lambda _: Reply(500)) as server:
        callback = {"Upstash_Callback": f"{server.url}/cb", "Upstash_Callback_Retries": "0"}
        relay.publish(f"{server.url}/x", Upstash_Label="dead", Upstash_Retries="0", **callback)
        relay.publish(f"{server.url}/x", Upstash_Label="live", Upstash_Delay="1h")
        # The callbacks of two attempts of `dead` become dead letters: those of the attempt and not of the message.
        dead_letters = until(lambda: client.holding(["dead"]).dead_letters.get("dead"), 30)
        until(lambda: client.holding(["dead", "live", "other"]).live == {"live"}, 30)
        [dlq_id] = dead_letters or []
        assert relay.call("GET", f"/v2/dlq/{dlq_id}").json()["url"].endswith("/cb")
        assert client.live_labels("") == ["live"]
        assert client.live_labels("live") == []
        before = len(server.received)
        client.retry_dead_letters([dlq_id])
        until(lambda: len(server.received) > before, 30)
        client.retry_dead_letters(["1-gone"])
    client.close()


def test_an_invalid_label_is_refused(relay: Relay) -> None:
    for body in (
        {},
        {"labels": "a"},
        {"labels": [1]},
        {"labels": ["a\0"]},
        {"labels": ["a"] * 1001},
        {"labels": ["a" * 257]},
    ):
        assert relay.call("POST", "/v2/labels", json=body).status_code == 400
    for query in ("limit=0", "limit=1001", "limit=x", "other=1"):
        assert relay.call("GET", f"/v2/labels?{query}").status_code == 400


def test_calls_are_cancelled_by_label_and_their_callbacks_are_not(relay: Relay) -> None:
    with destination(lambda received: Reply(500 if received.path == "/x" else 200)) as server:
        callback = {"Upstash_Callback": f"{server.url}/cb", "Upstash_Callback_Delay": "2s"}
        relay.publish(f"{server.url}/x", Upstash_Label="one", Upstash_Retry_Delay="3600000", **callback)
        until(lambda: len(server.received) == 1, 30)
        cancelled = until(
            lambda: relay.call("DELETE", "/v2/messages?label=one&kind=message").json()["cancelled"], 30, every=0.01
        )
        assert cancelled == 1
        until(lambda: [received.path for received in server.received] == ["/x", "/cb"], 30)
    assert relay.call("DELETE", "/v2/messages?kind=callback").status_code == 400  # a filter that matches nothing
