"""`client.flow_control`: the limits of a key, its waiting messages, and the pinning of its configuration."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
from qstash import QStash
from qstash.errors import QStashError
from qstash.message import FlowControl

from tests.destination import Destination
from tests.integration.sdk.seen import delivered, sent
from tests.wait import until


def publish(client: QStash, url: str, **limits: Any) -> str:
    """A message under the key `key`."""
    flow_control = {"key": "key", **limits}
    return sent(client.message.publish(url=url, flow_control=cast("FlowControl", flow_control)))


def test_a_key_is_known_from_its_first_message_on(client: QStash, site: Destination) -> None:
    message_id = publish(client, f"{site.url}/slow", parallelism=5, rate=10, period="1m")
    until(lambda: site.received)
    found = client.flow_control.get("key")
    assert (found.key, found.wait_list_size) == ("key", 0)
    assert (found.parallelism_max, found.parallelism_count) == (5, 1)
    assert (found.rate_max, found.rate_count, found.rate_period) == (10, 1, 60)
    assert found.rate_period_start == pytest.approx(time.time(), abs=61)
    assert (found.is_paused, found.is_pinned_parallelism, found.is_pinned_rate) == (False, False, False)
    client.message.cancel(message_id)
    until(lambda: client.flow_control.get("key").parallelism_count == 0)


def test_an_unknown_key_is_not_found(client: QStash) -> None:
    with pytest.raises(QStashError, match="404"):
        client.flow_control.get("unknown")


def test_parallelism_delays_calls_and_admits_them_later(client: QStash, site: Destination) -> None:
    first, *_ = [publish(client, f"{site.url}/slow", parallelism=2) for _ in range(4)]
    until(lambda: len(site.received) == 2)
    until(lambda: client.flow_control.get("key").wait_list_size == 2)
    assert client.flow_control.get("key").parallelism_count == 2
    client.message.cancel(first)
    until(lambda: len(site.received) == 3)
    assert client.flow_control.get("key").wait_list_size == 1


def test_the_rate_is_obeyed_and_can_be_reset(client: QStash, site: Destination) -> None:
    for _ in range(5):
        publish(client, site.url, rate=2, period="1h")
    until(lambda: len(site.received) == 2)
    until(lambda: client.flow_control.get("key").wait_list_size == 3)
    assert client.flow_control.get("key").rate_count == 2
    client.flow_control.reset_rate("key")
    until(lambda: len(site.received) == 4)
    assert client.flow_control.get("key").wait_list_size == 1


def test_a_reset_counts_from_zero(client: QStash, site: Destination) -> None:
    delivered(client, publish(client, site.url, rate=10, period="1h"))
    assert client.flow_control.get("key").rate_count == 1
    client.flow_control.reset_rate("key")
    assert client.flow_control.get("key").rate_count == 0


def test_a_paused_key_holds_its_messages_and_a_resumed_one_delivers_them(client: QStash, site: Destination) -> None:
    delivered(client, publish(client, f"{site.url}/first", parallelism=5))
    client.flow_control.pause("key")
    assert client.flow_control.get("key").is_paused is True
    held = [publish(client, f"{site.url}/held", parallelism=5) for _ in range(2)]
    delivered(client, sent(client.message.publish(url=f"{site.url}/other")))
    assert site.to("/held") == []
    assert client.flow_control.get("key").wait_list_size == 2
    client.flow_control.resume("key")
    assert client.flow_control.get("key").is_paused is False
    for message_id in held:
        delivered(client, message_id)


def test_a_pinned_configuration_is_not_changed_by_messages(client: QStash, site: Destination) -> None:
    delivered(client, publish(client, site.url, parallelism=5, rate=10, period="1m"))
    client.flow_control.pin("key", {"parallelism": 3, "rate": 20, "period": 120})
    delivered(client, publish(client, site.url, parallelism=7, rate=30, period=1))
    pinned = client.flow_control.get("key")
    assert (pinned.is_pinned_parallelism, pinned.is_pinned_rate) == (True, True)
    assert (pinned.parallelism_max, pinned.rate_max, pinned.rate_period) == (3, 20, 120)
    client.flow_control.unpin("key", {"parallelism": True, "rate": True})
    unpinned = client.flow_control.get("key")
    assert (unpinned.is_pinned_parallelism, unpinned.is_pinned_rate) == (False, False)
    assert (unpinned.parallelism_max, unpinned.rate_max) == (3, 20)
    delivered(client, publish(client, site.url, parallelism=7, rate=30, period=1))
    changed = client.flow_control.get("key")
    assert (changed.parallelism_max, changed.rate_max, changed.rate_period) == (7, 30, 1)


def test_parallelism_and_rate_are_pinned_and_unpinned_separately(client: QStash, site: Destination) -> None:
    delivered(client, publish(client, site.url, parallelism=5, rate=10))
    client.flow_control.pin("key", {"parallelism": 3})
    found = client.flow_control.get("key")
    assert (found.is_pinned_parallelism, found.is_pinned_rate, found.rate_max) == (True, False, 10)
    client.flow_control.pin("key", {"rate": 4, "period": 60})
    client.flow_control.unpin("key", {"parallelism": True})
    found = client.flow_control.get("key")
    assert (found.is_pinned_parallelism, found.is_pinned_rate, found.rate_max) == (False, True, 4)


def test_the_latest_message_sets_the_limits_of_a_key(client: QStash, site: Destination) -> None:
    for _ in range(3):
        publish(client, f"{site.url}/slow", parallelism=1)
    until(lambda: len(site.received) == 1)
    publish(client, f"{site.url}/slow", parallelism=4)
    until(lambda: len(site.received) == 4)


def test_keys_are_listed_and_searched(client: QStash) -> None:
    for key in ("images-a", "images-b", "texts"):
        client.message.publish(url="https://example.com", delay="1h", flow_control={"key": key, "parallelism": 1})

    def keys(**params: str) -> list[str]:
        # The client's method for the list is missing: its transport sends the request of the documentation.
        return sorted(
            item["flowControlKey"] for item in client.http.request(path="/v2/flowControl", method="GET", params=params)
        )

    assert keys() == ["images-a", "images-b", "texts"]
    assert keys(search="images") == ["images-a", "images-b"]


def test_global_parallelism_counts_calls_in_flight(client: QStash, site: Destination) -> None:
    assert client.flow_control.get_global_parallelism().parallelism_count == 0
    for _ in range(2):
        client.message.publish(url=f"{site.url}/slow")
    until(lambda: len(site.received) == 2)
    found = client.flow_control.get_global_parallelism()
    assert found.parallelism_count == 2
    assert found.parallelism_max >= 2


@pytest.mark.parametrize("value", ["", "parallelism=0", "rate=x", "rate=1, period=8d", "speed=5"])
def test_faulty_limits_are_refused(client: QStash, value: str) -> None:
    headers = {"Upstash-Flow-Control-Key": "key", "Upstash-Flow-Control-Value": value}
    with pytest.raises(QStashError, match="400"):
        client.http.request(path="/v2/publish/https://example.com", method="POST", headers=headers)
