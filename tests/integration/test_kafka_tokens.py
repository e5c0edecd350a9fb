"""Access tokens from an authorization server that is slow in different ways."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from kafka.errors import KafkaConnectionError

from tests.destination import Received, Reply, destination
from tests.unit.clock import Clock
from tests.wait import until
from tidings.kafka.tokens import ANSWER_BYTES_MAX, REUSE_FRACTION, UNFINISHED_MAX, OAuthClient, TokenProvider

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def _client(url: str) -> OAuthClient:
    return OAuthClient(f"{url}/token", "id", "secret")


@contextmanager
def _dripping(start: bytes) -> Iterator[str]:
    """A server that answers with `start` and then a byte at a time, as long as the client is connected."""
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.sendall(start)
            while not ended.wait(0.02):
                connection.sendall(b"x")

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            server.shutdown(socket.SHUT_RDWR)


# Longer than the test may take, so only the total timeout can end the wait.
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "start", [b"", HEAD, HEAD + b"Content-Length: 100000000\r\n\r\n"], ids=["status", "header", "body"]
)
def test_an_answer_that_arrives_byte_by_byte_times_out(start: bytes) -> None:
    with _dripping(start) as url:
        tokens = TokenProvider(_client(url), seconds_max=0.5)
        for _ in range(2):
            with pytest.raises(KafkaConnectionError, match="no access token"):
                tokens.token()


@pytest.mark.timeout(60)
def test_requests_that_do_not_end_are_bounded() -> None:
    with _dripping(HEAD) as url:
        tokens = TokenProvider(_client(url), seconds_max=0.1)
        for _ in range(UNFINISHED_MAX):
            with pytest.raises(KafkaConnectionError, match="in time"):
                tokens.token()
        with pytest.raises(KafkaConnectionError, match="have not ended"):
            tokens.token()
    # The server has ended, and so have the requests.
    until(lambda: not any(fetch.is_alive() for fetch in tokens._unfinished), 30)
    with pytest.raises(KafkaConnectionError, match="ConnectionError"):
        tokens.token()


def test_threads_that_wait_for_the_same_token_request_it_once() -> None:
    release = threading.Event()

    def held(_: Received) -> Reply:
        release.wait(30)
        return Reply(body=b'{"access_token": "t", "expires_in": 100}')

    with destination(held) as server:
        tokens, found = TokenProvider(_client(server.url), seconds_max=60), list[str]()
        threads = [threading.Thread(target=lambda: found.append(tokens.token())) for _ in range(5)]
        for thread in threads:
            thread.start()
        until(lambda: len(server.received) == 1, 30)
        release.set()
        for thread in threads:
            thread.join(30)
        assert (found, len(server.received)) == (["t"] * 5, 1)


def test_a_token_is_requested_again_before_it_expires() -> None:
    clock = Clock()
    with destination(lambda _: Reply(body=json.dumps({"access_token": "t", "expires_in": 100}).encode())) as server:
        tokens = TokenProvider(_client(server.url), clock, seconds_max=60)
        assert [tokens.token(), tokens.token()] == ["t", "t"]
        assert len(server.received) == 1
        clock.seconds += 100 * REUSE_FRACTION
        assert tokens.token() == "t"
        assert len(server.received) == 2


@pytest.mark.parametrize(
    "reply",
    [Reply(500), Reply(200, b"<html>"), Reply(200, b'{"access_token": ""}'), Reply(200, b" " * (ANSWER_BYTES_MAX + 1))],
    ids=["error", "no JSON", "no token", "too large"],
)
def test_an_invalid_token_is_a_failed_connection_and_shows_no_secret(reply: Reply) -> None:
    with destination(lambda _: reply) as server:
        with pytest.raises(KafkaConnectionError) as error:
            TokenProvider(_client(server.url), seconds_max=60).token()
        assert "secret" not in str(error.value)
