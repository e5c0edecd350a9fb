"""The api as a real process under granian."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import psycopg
import pytest
import requests

from stack.ports import free_ports
from tests.infra.postgres import PostgresServer
from tests.process import Process, started
from tests.wait import until
from tidings.database.migrate import add_api_key


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
    except psutil.NoSuchProcess:  # between the two requests
        return False


def workers() -> list[psutil.Process]:
    return list(psutil.Process().children(recursive=True))


def test_a_body_with_a_length_and_a_chunked_body_get_the_same_answer(
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
    "path",
    [
        "/v1/submissions",
        "/v1/submissions/batch",
        "/callbacks/relay",
        "/callbacks/relay/starts",
        "/internal/dispatches",
    ],
)
def test_a_request_without_authorization_is_answered_before_its_body(
    postgres: PostgresServer, database: str, tmp_path: Path, path: str
) -> None:
    process = served(postgres, database, tmp_path)
    listen = "API_INTERNAL_LISTEN" if path.startswith("/internal") else "API_LISTEN"
    port = int(process.environment[listen].rpartition(":")[2])
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer none\r\nContent-Length: 1000\r\n\r\n"
    with started(process), socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        # The body is never sent.
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_no_worker_outlives_a_killed_server(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    before = {child.pid for child in workers()}
    with started(served(postgres, database, tmp_path)) as process:
        left = [child for child in workers() if child.pid not in before]
        assert left
        process.kill()
        until(lambda: not [child for child in left if _runs(child)])


def port_of(process: Process, listen: str = "API_LISTEN") -> int:
    return int(process.environment[listen].rpartition(":")[2])


def status_of(port: int, head: bytes, body: bytes = b"") -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head + b"\r\n" + body)
        return int(connection.recv(1000).split()[1])


def test_an_invalid_head_is_refused(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    process = served(postgres, database, tmp_path)
    get = b"GET /healthz HTTP/1.1\r\n"
    post = b"POST /v1/submissions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Encoding: %s\r\n"
    with started(process):
        for port in (port_of(process), port_of(process, "API_INTERNAL_LISTEN")):
            assert status_of(port, get + b"Host: x\r\n") == 200
            assert status_of(port, get) == 400
            assert status_of(port, get + b"Host:\r\n") == 400
            assert status_of(port, get + b"Host: x\r\nHost: x\r\n") == 400
            assert status_of(port, b"GET /healthz HTTP/1.0\r\n") == 200
        assert status_of(port_of(process), post % b"gzip", b"{}") == 415
        assert status_of(port_of(process), post % b"identity", b"{}") == 401


def test_internal_routes_are_not_on_the_clients_port(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    process = served(postgres, database, tmp_path)
    token = {"Authorization": "Bearer x"}
    with started(process):
        outside, inside = (f"http://127.0.0.1:{port_of(process, n)}" for n in ("API_LISTEN", "API_INTERNAL_LISTEN"))
        for base, status in ((outside, 404), (inside, 200)):
            asked = requests.post(f"{base}/internal/dispatches", json={"ids": []}, headers=token, timeout=30)
            figures = requests.get(f"{base}/metrics", timeout=30)
            assert (asked.status_code, figures.status_code) == (status, status)
        assert b"tidings_commit_batch_size" in figures.content
        assert requests.get(f"{inside}/v1/submissions", headers=token, timeout=30).status_code == 404
        for base in (outside, inside):
            assert requests.get(f"{base}/readyz", timeout=30).status_code == 200
            for path in ("/callbacks/relay?submission=x", "/callbacks/relay/starts"):
                assert requests.post(f"{base}{path}", timeout=30).status_code == 401


@pytest.mark.parametrize("listen", ["API_LISTEN", "API_INTERNAL_LISTEN"])
def test_a_port_in_use_is_reported_in_one_sentence_and_ends_the_process(
    postgres: PostgresServer, database: str, tmp_path: Path, listen: str
) -> None:
    (tmp_path / "other").mkdir()
    with started(served(postgres, database, tmp_path)) as first:
        second = served(postgres, database, tmp_path / "other")
        second.environment[listen] = first.environment[listen]
        second.ready_url = None
        with started(second):
            assert second.wait(60) != 0
        assert second.log.read_text() == f"cannot listen at {first.environment[listen]}: Address already in use\n"
        assert requests.get(str(first.ready_url), timeout=30).status_code == 200


def test_sigterm_ends_the_server_while_clients_are_silent_or_in_the_middle_of_a_request(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    with psycopg.connect(postgres.url(database)) as connection:
        add_api_key(connection, "key", tenant="t", name="k")
    process = served(postgres, database, tmp_path)
    half = b"POST /v1/submissions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\nContent-Length: 9\r\n\r\n{"
    with started(process), ExitStack() as stack:
        for said in (b"", b"GET", half):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port_of(process)), timeout=30))
            sock.sendall(said)
        assert process.stop() == 0  # waits for up to 60 s


def test_a_request_in_progress_is_finished_before_the_end(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    with psycopg.connect(postgres.url(database)) as connection:
        add_api_key(connection, "key", tenant="t", name="k")
    process = served(postgres, database, tmp_path)
    url = str(process.ready_url).replace("/readyz", "/v1/submissions")
    content = {"target": "demo-images", "input": 1}
    locked = psycopg.connect(postgres.url(database))
    with started(process), locked, ThreadPoolExecutor() as pool:
        locked.execute("LOCK TABLE tidings.submissions IN ACCESS EXCLUSIVE MODE")
        posting = pool.submit(requests.post, url, json=content, headers={"Authorization": "Bearer key"}, timeout=60)
        until(lambda: waits(postgres, database))
        stopping = pool.submit(process.stop)
        until(lambda: refused(port_of(process)))
        locked.commit()
        assert posting.result(60).status_code == 202
        assert stopping.result(60) == 0


def waits(postgres: PostgresServer, database: str) -> bool:
    with psycopg.connect(postgres.url(database)) as connection:
        query = (
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%INTO tidings.submissions%%'"
        )
        return connection.execute(query + " AND datname = %s", (database,)).fetchone() is not None


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_sigterm_ends_the_server_with_0(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    with started(served(postgres, database, tmp_path)) as process:
        assert process.stop() == 0
