"""The health server answers probes while other clients are idle, slow or many."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
import requests
from prometheus_client import CollectorRegistry, Gauge

from tests.wait import until
from tidings.process.health import CONNECTIONS_MAX, HealthServer

# The timeout of a probe. Kubernetes' default is 1 s, and a busy machine needs more.
ANSWER_SECONDS = 5


@pytest.fixture
def server() -> Iterator[HealthServer]:
    registry = CollectorRegistry()
    Gauge("test_large", "x" * 16_000_000, registry=registry)  # more than socket buffers hold, for the slow reader
    made = HealthServer("127.0.0.1:0", {"always": lambda: None}, registry).start()
    yield made
    made.stop()


def _answers(server: HealthServer) -> bool:
    url = f"http://127.0.0.1:{server.port}"
    return all(
        requests.get(f"{url}{path}", timeout=ANSWER_SECONDS).status_code == 200 for path in ("/healthz", "/readyz")
    )


def _connected(server: HealthServer, stack: ExitStack, number: int, sent: bytes = b"") -> list[socket.socket]:
    made = []
    for _ in range(number):
        made.append(stack.enter_context(closing(socket.create_connection(("127.0.0.1", server.port), 10))))
        if sent:
            made[-1].sendall(sent)
    return made


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nX: "], ids=["silent", "half a request"])
@pytest.mark.parametrize("number", [1, 3 * CONNECTIONS_MAX])
def test_idle_connections_do_not_block_a_probe(server: HealthServer, sent: bytes, number: int) -> None:
    with ExitStack() as stack:
        _connected(server, stack, number, sent)
        assert _answers(server)


def test_clients_that_do_not_read_do_not_block_a_probe(server: HealthServer) -> None:
    with ExitStack() as stack:
        _connected(server, stack, 3, b"GET /metrics HTTP/1.0\r\n\r\n")
        assert _answers(server)


def test_connections_and_threads_are_bounded(server: HealthServer) -> None:
    before = threading.active_count()
    with ExitStack() as stack:
        _connected(server, stack, 5 * CONNECTIONS_MAX)
        until(lambda: threading.active_count() <= before + CONNECTIONS_MAX, 30)
        assert _answers(server)


def test_a_client_that_sends_a_byte_at_a_time_is_disconnected(server: HealthServer) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.port), 30)) as client:

        def ended() -> bool:
            try:
                client.sendall(b"x")
            except OSError:
                return True
            return False

        until(ended, 60, every=0.5)
