"""A real relay as a process, on its own database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography.fernet import Fernet

from stack.ports import free_ports
from tests.infra.postgres import PostgresServer
from tests.infra.relay_fork import RelayFork
from tests.process import Process, Running

TOKEN = "relay-token"
CURRENT_KEY = "sig_current_key_of_the_tests_0123456789"
NEXT_KEY = "sig_next_key_of_the_tests_0123456789abc"


class RelayProcess(Process):
    """A fork of a process that has the relay's modules, unless a wrapper executes it."""

    def _started(self, environment: Mapping[str, str]) -> Running:
        return super()._started(environment) if self.wrapper else RelayFork(environment, self.log)


class Relay:
    """A relay process and a client of it."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {TOKEN}"

    def publish(self, url: str, body: str | bytes = "", version: str = "2", **headers: str) -> requests.Response:
        """Publish. Header names have underscores in place of dashes: `Upstash_Retries="3"`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.post(f"{self.url}/v{version}/publish/{url}", data=body, headers=named, timeout=30)

    def call(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Send any request. `path` begins with /, and `arguments` are those of requests."""
        return self.session.request(method, self.url + path, timeout=30, **arguments)

    def message(self, message_id: str) -> dict[str, Any] | None:
        answer = self.session.get(f"{self.url}/v2/messages/{message_id}", timeout=30)
        return None if answer.status_code == 404 else answer.json()

    def state(self, message_id: str) -> str | None:
        message = self.message(message_id)
        return None if message is None else message["state"]


@contextmanager
def relays(postgres: PostgresServer, directory: Path) -> Iterator[Callable[..., Relay]]:
    """Starts relays on one database of their own, with settings as keyword arguments: `RELAY_LEASE_SECONDS="2"`. With
    `ready=False` the call does not wait until they serve.
    """
    started: list[Relay] = []
    key = Fernet.generate_key().decode()
    with postgres.database(template="template1") as name:

        def start(*, ready: bool = True, wrapper: Sequence[str] = (), **settings: str) -> Relay:
            [port] = free_ports(1)
            environment = {
                "RELAY_DATABASE_URL": postgres.url(name),
                "RELAY_LISTEN": f"127.0.0.1:{port}",
                "QSTASH_TOKEN": TOKEN,
                "QSTASH_CURRENT_SIGNING_KEY": CURRENT_KEY,
                "QSTASH_NEXT_SIGNING_KEY": NEXT_KEY,
                "RELAY_ENCRYPTION_KEYS": key,
                "RELAY_ALLOW_PRIVATE": "127.0.0.0/8",
                "RELAY_DRAIN_SECONDS": "1",
            }
            log = directory / f"relay-{len(started)}.log"
            ready_url = f"http://127.0.0.1:{port}/readyz" if ready else None
            process = RelayProcess("services.relay", environment | settings, log, ready_url=ready_url, wrapper=wrapper)
            started.append(Relay(process.start(), port))
            return started[-1]

        yield start
        for relay in started:
            if relay.process.running():
                relay.process.kill()


@pytest.fixture
def new_relay(postgres: PostgresServer, tmp_path: Path) -> Iterator[Callable[..., Relay]]:
    """Start relays on one database, with settings as keyword arguments: `RELAY_LEASE_SECONDS="2"`. `wrapper` is that of
    `Process`.
    """
    with relays(postgres, tmp_path) as start:
        yield start


@pytest.fixture
def relay(new_relay: Callable[..., Relay]) -> Relay:
    return new_relay()


@pytest.fixture(scope="module")
def shared(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """One relay for the tests of a file whose results do not depend on each other's messages."""
    with relays(postgres, tmp_path_factory.mktemp("relay")) as start:
        yield start()
