"""`client.signing_key` and `Receiver`: the client's own code verifies deliveries, also during a rotation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from qstash import QStash, Receiver
from qstash.errors import SignatureError

from tests.destination import Destination, Received, destination
from tests.integration.relay.conftest import CURRENT_KEY, NEXT_KEY, TOKEN, Relay
from tests.wait import until


def deliver(client: QStash, site: Destination) -> Received:
    """A message as its destination received it."""
    before = len(site.received)
    client.message.publish(url=f"{site.url}/path?query=1", body='{"ä": 1}')
    return until(lambda: site.received[before:])[0]


def verify(current: str, following: str, received: Received, url: str) -> None:
    Receiver(current, following).verify(
        signature=received.headers["Upstash-Signature"], body=received.body.decode(), url=url
    )


def test_the_keys_are_those_of_the_settings(client: QStash) -> None:
    keys = client.signing_key.get()
    assert (keys.current, keys.next) == (CURRENT_KEY, NEXT_KEY)


def test_a_delivery_is_verified_and_a_changed_one_refused(client: QStash, site: Destination) -> None:
    received = deliver(client, site)
    verify(CURRENT_KEY, NEXT_KEY, received, f"{site.url}/path?query=1")
    with pytest.raises(SignatureError):
        verify(NEXT_KEY, NEXT_KEY, received, f"{site.url}/path?query=1")
    with pytest.raises(SignatureError, match="subject"):
        verify(CURRENT_KEY, CURRENT_KEY, received, site.url)
    with pytest.raises(SignatureError, match="body hash"):
        Receiver(CURRENT_KEY, CURRENT_KEY).verify(signature=received.headers["Upstash-Signature"], body="changed")


def test_the_signed_address_is_the_requested_one(new_relay: Callable[..., Relay]) -> None:
    with destination() as site:
        relay = new_relay(RELAY_DESTINATION_MAP=f"https://my-app.example={site.url}")
        QStash(TOKEN, base_url=relay.url).message.publish(url="https://my-app.example/hook", body="x")
        [received] = until(lambda: site.received)
    assert received.headers["Host"] == "my-app.example"
    verify(CURRENT_KEY, NEXT_KEY, received, "https://my-app.example/hook")


def test_a_rotation_makes_the_next_key_current_and_receivers_continue(client: QStash, site: Destination) -> None:
    url = f"{site.url}/path?query=1"
    rotated = client.signing_key.rotate()
    assert rotated.current == NEXT_KEY
    assert rotated.next not in {CURRENT_KEY, NEXT_KEY}
    assert client.signing_key.get() == rotated
    received = until(lambda: signed_by(rotated.current, deliver(client, site), url))
    assert received is not None
    verify(CURRENT_KEY, NEXT_KEY, received, url)  # a receiver that still has the old keys


def signed_by(key: str, received: Received, url: str) -> Received | None:
    try:
        verify(key, key, received, url)
    except SignatureError:
        return None
    return received


def test_a_rotation_persists_across_a_restart(new_relay: Callable[..., Relay]) -> None:
    first = new_relay()
    rotated = QStash(TOKEN, base_url=first.url).signing_key.rotate()
    first.process.kill()
    assert QStash(TOKEN, base_url=new_relay().url).signing_key.get() == rotated
