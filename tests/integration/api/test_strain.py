"""The api as a real process, with clients that are silent, send slowly, or send bodies that are expensive to parse."""

from __future__ import annotations

import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
import requests

from tests.infra.postgres import PostgresServer
from tests.integration.api.test_server import served
from tests.process import Process, started
from tidings.database.migrate import add_api_key

HEADERS = {"Authorization": "Bearer key", "Content-Type": "application/json"}
# Far longer than an answer takes on a busy machine, and far shorter than the 30 s for which silent clients stay
# connected.
ANSWER_SECONDS = 15


@pytest.fixture
def api(postgres: PostgresServer, database: str, tmp_path: Path) -> Iterator[Process]:
    with psycopg.connect(postgres.url(database)) as connection:
        add_api_key(connection, "key", tenant="t", name="k")
        add_api_key(connection, "other", tenant="u", name="k")
    with started(served(postgres, database, tmp_path)) as process:
        yield process


def address(api: Process) -> tuple[str, int]:
    host, _, port = api.environment["API_LISTEN"].rpartition(":")
    return host, int(port)


def url(api: Process, path: str) -> str:
    return f"http://{api.environment['API_LISTEN']}{path}"


def submitted(api: Process, key: str = "key") -> int:
    headers = HEADERS | {"Authorization": f"Bearer {key}"}
    content = {"target": "demo-images", "input": {"prompt": "x"}}
    return requests.post(url(api, "/v1/submissions"), json=content, headers=headers, timeout=ANSWER_SECONDS).status_code


@contextmanager
def connections(api: Process, count: int, said: bytes) -> Iterator[list[socket.socket]]:
    """More connections than the usual limit of open files. Each has sent `said` and sends no more. They are reset at
    the end, and none remains in TIME_WAIT.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(address(api), timeout=ANSWER_SECONDS))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(said)
            made.append(sock)
        yield made


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2.0\r\n"])
def test_silent_connections_do_not_block_other_clients(api: Process, said: bytes) -> None:
    with connections(api, 1100, said):
        assert submitted(api) == 202
        assert requests.get(url(api, "/healthz"), timeout=ANSWER_SECONDS).status_code == 200


HALF = b"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\nContent-Type: application/json\r\n%s\r\n%s"


@pytest.mark.parametrize(
    "half",
    [
        HALF % (b"/v1/submissions", b"Content-Length: 1000\r\n", b'{"target"'),
        HALF % (b"/v1/submissions", b"Transfer-Encoding: chunked\r\n", b'9\r\n{"target"\r\n'),
        HALF % (b"/v1/submissions", b"Content-Length: 1000\r\nExpect: 100-continue\r\n", b""),
        HALF % (b"/v1/submissions", b"Content-Length: 1000\r\nIdempotency-Key: a\r\n", b"{"),
        HALF % (b"/v1/submissions/batch", b"Content-Length: 1000\r\n", b"{"),
        HALF % (b"/generate-image", b"Content-Length: 1000\r\n", b"{"),
    ],
    ids=["length", "chunked", "expect", "repeat", "batch", "article"],
)
def test_incomplete_bodies_use_no_thread(api: Process, half: bytes) -> None:
    with connections(api, 70, half):
        assert submitted(api, "other") == 202
        assert requests.get(url(api, "/readyz"), timeout=ANSWER_SECONDS).status_code == 200


def test_a_tenants_incomplete_bodies_leave_room_for_another_tenant(api: Process) -> None:
    # Together they need more than the whole limit, but each tenant has a share of it.
    half = HALF % (b"/v1/submissions/batch", b"Content-Length: 30000000\r\n", b"{")
    with connections(api, 12, half):
        assert submitted(api, "other") == 202


def test_a_body_that_does_not_arrive_is_ended_by_the_server(api: Process) -> None:
    half = HALF % (b"/v1/submissions", b"Content-Length: 1000\r\n", b'{"target"')
    with connections(api, 1, half) as [sock]:
        sock.settimeout(120)
        assert sock.recv(1000).startswith(b"HTTP/1.1 408 ")
        while sock.recv(1000):
            pass
