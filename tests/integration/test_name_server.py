"""The tests' name server: its answers, its failures, and its silence."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.infra.names import NameServer, name_server

ADDRESS = "127.0.55.53"
# Long enough for an answer on loopback. A silent server never answers.
SILENT_SECONDS = 1.0


@pytest.fixture
def server() -> Iterator[NameServer]:
    try:
        opened = name_server(ADDRESS, {"known.test": "127.0.0.9"}, absent=["absent.test"])
        with opened as server:
            yield server
    except PermissionError:
        pytest.skip("NOT TESTED: port 53 needs root")


def asked(name: str, seconds: float = 10.0) -> bytes:
    """The answer to a query for the address of `name`. Raises `TimeoutError`."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(seconds)
        client.sendto(b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1", (ADDRESS, 53))
        return client.recv(512)


def code(answer: bytes) -> int:
    return answer[3] & 15


def test_a_known_name_has_its_address_and_an_absent_one_does_not_exist(server: NameServer) -> None:
    answer = asked("known.test")
    assert (answer[:2], code(answer)) == (b"\x12\x34", 0)
    assert answer.endswith(socket.inet_aton("127.0.0.9"))
    assert code(asked("absent.test")) == 3


def test_a_failing_server_answers_with_an_error_for_every_name_and_then_answers_again(server: NameServer) -> None:
    server.mode = "fails"
    assert [code(asked(name)) for name in ("known.test", "absent.test")] == [2, 2]
    server.mode = "answers"
    assert code(asked("known.test")) == 0


def test_a_silent_server_answers_nothing_and_counts_its_queries(server: NameServer) -> None:
    server.mode = "silent"
    with pytest.raises(TimeoutError):
        asked("known.test", SILENT_SECONDS)
    assert (server.counts["silent"], server.asked) == (1, ["known.test"])
