"""HTTP below the routes: malformed requests, encodings, and `Expect`."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.destination import destination
from tests.integration.relay.conftest import TOKEN, Relay
from tests.wait import until

HEAD = b"Host: relay\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"


def spoken(relay: Relay, *pieces: bytes) -> bytes:
    """All bytes of the relay's answer. Each piece is sent after an answer to the previous one."""
    address = urlsplit(relay.url)
    answer = b""
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=20) as connection:
        for piece in pieces:
            connection.sendall(piece)
            answer += connection.recv(65_536)
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65_536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"BROKEN\r\n\r\n", 400),
        (b"GET /v2/queues HTTP/9.9\r\n\r\n", 400),
        (b"GET /v2/queues HTTP/1.1\r\nA B: x\r\n\r\n", 400),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: relay\r\n\r\n", 400),
        (b"GET /v2/queues HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 400),
        (b"POST /v2/queues HTTP/1.1\r\n" + HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (b"POST /v2/queues HTTP/1.1\r\n" + HEAD + b"Expect: a-miracle\r\nContent-Length: 2\r\n\r\n{}", 417),
        (b"POST /v2/publish/https://a.example%0d%0a HTTP/1.1\r\n" + HEAD + b"Content-Length: 0\r\n\r\n", 200),
        (b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", 404),
        (b"GET /%0a HTTP/1.1\r\n" + HEAD + b"\r\n", 404),
    ],
)
def test_the_answer_to_any_malformed_request_is_json(shared: Relay, request_bytes: bytes, status: int) -> None:
    head, _, body = spoken(shared, request_bytes).partition(b"\r\n\r\n")
    assert head.split()[1] == str(status).encode(), head
    assert b"content-type: application/json" in head.lower()
    assert list(json.loads(body)) == ["error" if status >= 400 else "messageId"]


def test_a_client_that_expects_100_gets_it_only_when_the_body_is_accepted(shared: Relay) -> None:
    start = b"POST /v2/queues HTTP/1.1\r\n%bExpect: 100-continue\r\nContent-Length: 27\r\n\r\n"
    answer = spoken(shared, start % HEAD, b'{"queueName":"expected-10"}')
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 ")
    assert spoken(shared, start % b"Host: relay\r\n").startswith(b"HTTP/1.1 401 ")


def test_a_compressed_body_is_delivered_unchanged(shared: Relay) -> None:
    body = gzip.compress(b"hello " * 100)
    headers = {"Upstash-Header-Forward": "true", "Content-Encoding": "gzip"}
    with destination() as server:
        assert shared.call("POST", f"/v2/publish/{server.url}", data=body, headers=headers).status_code == 200
        not_compressed = shared.call("POST", f"/v2/publish/{server.url}", data=b"plain", headers=headers)
        assert not_compressed.status_code == 200
        received = until(lambda: server.received[1:] and server.received)
    assert {one.body for one in received} == {body, b"plain"}
    assert {one.headers["Content-Encoding"] for one in received} == {"gzip"}


@pytest.mark.parametrize(("method", "path"), [("POST", "/v2/batch"), ("POST", "/v2/queues"), ("DELETE", "/v2/dlq")])
def test_compressed_json_is_refused(shared: Relay, method: str, path: str) -> None:
    headers = {"Content-Encoding": "gzip"}
    answer: requests.Response = shared.call(method, path, data=gzip.compress(b"[]"), headers=headers)
    assert (answer.status_code, list(answer.json())) == (415, ["error"])


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"deflate,chunked", b"chunked, chunked", b"x, chunked"])
def test_a_transfer_coding_other_than_chunked_is_refused(shared: Relay, coding: bytes) -> None:
    body = b"3\r\nabc\r\n0\r\n\r\n"
    head = b"POST /v2/publish/http://127.0.0.1:9/ HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: " + coding
    answer = spoken(shared, head + b"\r\n\r\n" + body)
    assert answer.split()[1] in {b"501", b"400"}, answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def test_a_client_that_disconnects_in_its_body_is_not_an_error_of_the_relay(new_relay: Callable[..., Relay]) -> None:
    relay = new_relay()
    address = urlsplit(relay.url)
    for path, large in (
        ("/v2/publish/http://127.0.0.1:9/", False),
        ("/v2/batch", False),
        ("/v2/publish/http://a.b", True),
    ):
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=20) as connection:
            head = b"POST %b HTTP/1.1\r\n%bContent-Length: 900000\r\n\r\n" % (path.encode(), HEAD)
            connection.sendall(head + b"[" + b"x" * (300_000 if large else 0))
    log = relay.process.log
    until(lambda: log.read_text().count("client_gone") == 3)
    assert "request_failed" not in log.read_text()


def test_endless_heads_cost_little_memory_and_are_refused(new_relay: Callable[..., Relay]) -> None:
    relay = new_relay()
    address = urlsplit(relay.url)
    before = resident_bytes(relay)
    field = b"A%d: " + b"x" * 65_000 + b"\r\n"
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(
                socket.create_connection((address.hostname or "", address.port or 0), timeout=20)
            )
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
            with suppress(ConnectionError, TimeoutError):
                for n in range(100):
                    connection.sendall(field % n)
        # It was 240 MB before: bytes beyond the limit are read and discarded, or not read at all.
        assert resident_bytes(relay) - before < 80 * 1024 * 1024
    assert relay.call("GET", "/healthz").status_code == 200


def resident_bytes(relay: Relay) -> int:
    status = Path(f"/proc/{relay.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024


def test_a_header_in_latin_1_is_delivered_byte_for_byte_and_shown_as_text(shared: Relay) -> None:
    with destination() as server:
        head = b"POST /v2/publish/%b/x HTTP/1.1\r\n%bContent-Length: 0\r\n" % (server.url.encode(), HEAD)
        names = b"Upstash-Forward-X-Name: Jos\xe9\r\nUpstash-Forward-X-Other: Jos\xc3\xa9\r\nUpstash-Label: J\xf6rg\r\n"
        cities = (
            b"X-City: K\xf6ln\r\nUpstash-Header-Forward: true\r\nUpstash-Callback: %b/told\r\n" % server.url.encode()
        )
        answer = spoken(shared, head + names + cities + b"\r\n")
        assert answer.split()[1] == b"200", answer
        [received] = until(lambda: server.to("/x"))
        [told] = until(lambda: server.to("/told"))
    # The test's server reads headers as Latin-1.
    found = (received.headers["X-Name"], received.headers["X-Other"], received.headers["X-City"])
    assert found == ("José", "JosÃ©", "Köln")
    source = json.loads(told.body)["sourceHeader"]
    assert (source["X-Name"], source["X-Other"]) == (["José"], ["José"])
    assert json.loads(told.body)["label"] == "Jörg"
    assert shared.call("GET", "/v2/events", params={"label": "Jörg"}).json()["events"]


@pytest.mark.parametrize("name", ["Content-Type", "Upstash-Forward-X", "X-Whatever"])
@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\u0000b"])
def test_a_line_break_in_a_header_of_a_batch_is_400_and_names_the_item(shared: Relay, name: str, value: str) -> None:
    items = [{"destination": "http://127.0.0.1:9/"}, {"destination": "http://127.0.0.1:9/", "headers": {name: value}}]
    answer = shared.call("POST", "/v2/batch", json=items)
    assert answer.status_code == 400
    assert name.lower() in answer.json()["error"].lower()
    assert "message 1" in answer.json()["error"]


def test_invalid_group_headers_are_refused(shared: Relay) -> None:
    answer = shared.call("PATCH", "/v2/topics/broken", json={"headers": {"Content-Type": "a\r\nX: y"}})
    assert (answer.status_code, "content-type" in answer.json()["error"]) == (400, True)
