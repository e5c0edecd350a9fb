"""The vendor's clients, unmodified, on a real relay of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from qstash import QStash

from tests.destination import Destination, Received, Reply, destination
from tests.integration.relay.conftest import TOKEN, Relay, new_relay, relay

__all__ = ["new_relay", "relay"]

# Long enough for every look at a call under way; `Destination.close` ends it early.
SLOW_SECONDS = 60.0


def by_path(received: Received) -> Reply:
    """`/404` answers that status; `/slow` takes its time; everything else is 200."""
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
