"""The vendor's clients, unmodified, with a real relay of each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from qstash import QStash

from tests.destination import Destination, Received, Reply, destination
from tests.integration.relay.conftest import TOKEN, Relay, new_relay, relay

__all__ = ["new_relay", "relay"]

# Long enough for every check of a call in flight. `Destination.close` ends it early.
SLOW_SECONDS = 60.0


def by_path(received: Received) -> Reply:
    """`/404` answers with that status, `/slow` answers late, and all other paths answer 200."""
    path = received.path.partition("?")[0].strip("/")
    if path == "slow":
        return Reply(delay_seconds=SLOW_SECONDS)
    if path == "404":
        return Reply(404, b"404 Not Found")
    return Reply(int(path)) if path.isdigit() else Reply()


@pytest.fixture
def site() -> Iterator[Destination]:
    with destination(by_path) as server:
        yield server


@pytest.fixture
def client(relay: Relay) -> QStash:
    return QStash(TOKEN, base_url=relay.url, retry=False)
