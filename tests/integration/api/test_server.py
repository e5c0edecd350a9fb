"""The api as a real process under granian."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import psycopg
import pytest
import requests

from stack.ports import free_ports
from tests.infra.postgres import PostgresServer
from tests.process import Process, started
from tests.wait import until
from tidings.migrate import add_api_key


def served(postgres: PostgresServer, database: str, directory: Path) -> Process:
    port, internal = free_ports(2)
    environment = {
        "API_LISTEN": f"127.0.0.1:{port}",
        "API_INTERNAL_LISTEN": f"127.0.0.1:{internal}",
        "API_DATABASE_URL": postgres.url(database, role="tidings_api"),
        "TIDINGS_INTERNAL_TOKEN": "x",
        "QSTASH_CURRENT_SIGNING_KEY": "x",
        "QSTASH_NEXT_SIGNING_KEY": "x",
    }
    return Process("services.api", environment, directory / "api.log", ready_url=f"http://127.0.0.1:{port}/readyz")


def _runs(child: psutil.Process) -> bool:
    try:
        return bool(child.is_running() and child.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # between the two questions
        return False


def workers() -> list[psutil.Process]:
    return list(psutil.Process().children(recursive=True))


def test_a_body_with_a_length_and_one_in_chunks_are_answered_alike(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    with psycopg.connect(postgres.url(database)) as connection:
        add_api_key(connection, "key", tenant="t", name="k")
    process = served(postgres, database, tmp_path)
    url = str(process.ready_url).replace("/readyz", "/v1/submissions")
    headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
    body = b'{"target": "demo-images", "input": 1}'
    with started(process):
        whole = requests.post(url, data=body, headers=headers, timeout=30)
        chunked = requests.post(url, data=iter([body[:9], body[9:]]), headers=headers, timeout=30)
    assert (whole.status_code, chunked.status_code) == (202, 202)
    assert whole.headers.keys() == chunked.headers.keys()
    assert whole.json().keys() == chunked.json().keys()


@pytest.mark.parametrize(
    "path", ["/v1/submissions", "/v1/submissions/batch", "/callbacks/relay", "/internal/dispatches"]
)
def test_who_may_not_send_is_not_waited_for(postgres: PostgresServer, database: str, tmp_path: Path, path: str) -> None:
    process = served(postgres, database, tmp_path)
    listen = "API_INTERNAL_LISTEN" if path.startswith("/internal") else "API_LISTEN"
    port = int(process.environment[listen].rpartition(":")[2])
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer none\r\nContent-Length: 1000\r\n\r\n"
    with started(process), socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        # Of the body nothing comes, ever.
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_no_worker_outlives_a_killed_server(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    before = {child.pid for child in workers()}
    with started(served(postgres, database, tmp_path)) as process:
        left = [child for child in workers() if child.pid not in before]
        assert left
        process.kill()
        until(lambda: not [child for child in left if _runs(child)])


def test_sigterm_ends_the_server_with_0(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    with started(served(postgres, database, tmp_path)) as process:
        assert process.stop() == 0
