"""The registration of the connector over Connect's REST: it is idempotent, and applies a changed file."""

from __future__ import annotations

import json

import pytest

from services.watcher.connector import Connector, ConnectUnavailableError, RegistrationRefusedError
from tests.destination import Received, Reply, destination


class Rest:
    """The part of Connect that registration needs. `PUT` answers `status`."""

    def __init__(self, stored: dict[str, str] | None, status: int = 200) -> None:
        self.stored = stored
        self.puts = 0
        self._status = status

    def __call__(self, received: Received) -> Reply:
        assert received.path == "/connectors/tidings/config"
        if received.method == "PUT":
            self.puts += 1
            if self._status == 200:
                self.stored = {**json.loads(received.body), "name": "tidings"}
            return Reply(self._status, b'{"message": "poll.interval.ms is wrong"}')
        return Reply(404) if self.stored is None else Reply(200, json.dumps(self.stored).encode())


def test_connect_gets_the_password_of_its_rest() -> None:
    seen: list[str | None] = []

    def rest(received: Received) -> Reply:
        seen.append(received.headers.get("Authorization"))
        return Reply(401)

    with destination(rest) as server:
        for password in ("secret", None):
            with pytest.raises(ConnectUnavailableError, match="401"):
                Connector(server.url, "tidings", password).state()
    assert seen == ["Basic dGlkaW5nczpzZWNyZXQ=", None]


def test_a_connector_is_registered_once_and_again_when_its_file_has_changed() -> None:
    rest = Rest(None)
    with destination(rest) as server:
        connector = Connector(server.url, "tidings")
        assert connector.register({"poll.interval.ms": "5"})
        assert not connector.register({"poll.interval.ms": "5"})
        assert rest.puts == 1
        assert connector.register({"poll.interval.ms": "10"})
        assert connector.register({"linger.ms": "0"})  # a setting that was removed from the file is removed, too
        assert rest.stored == {"linger.ms": "0", "name": "tidings"}


def test_a_file_that_connect_refuses_is_reported_with_its_reason() -> None:
    with destination(Rest(None, 400)) as server, pytest.raises(RegistrationRefusedError, match="is wrong"):
        Connector(server.url, "tidings").register({"poll.interval.ms": "x"})


@pytest.mark.parametrize("status", [0, 409, 500, 503])
def test_a_connect_that_is_busy_or_down_is_retried(status: int) -> None:
    with destination(Rest({}, status)) as server, pytest.raises(ConnectUnavailableError):
        Connector(server.url, "tidings").register({"poll.interval.ms": "5"})
