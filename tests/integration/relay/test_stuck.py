"""A destination, name or reader that hangs does not affect others: a relay on real sockets with other destinations that
work.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from tests.destination import Reply, destination
from tests.infra.names import may_have_own_names, name_server, own_names
from tests.infra.stuck import BUFFER_BYTES, black_hole, deaf
from tests.integration.relay.conftest import TOKEN, Relay
from tests.process import ROOT
from tests.wait import patient, until

# Messages to working destinations are delivered within this time. They take a fraction of a second, and without a bound
# 30 s or hours.
WELL_SECONDS = 25.0
MIB = 1024 * 1024
# More than the buffers of two connections hold.
LARGE = os.urandom(6 * MIB)


def batch(relay: Relay, url: str, count: int, **headers: str) -> list[str]:
    """Publish `count` messages; return their ids."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = relay.call("POST", "/v2/batch", json=[{"destination": url, "headers": named}] * count)
    return [item["messageId"] for item in answer.json()]


def chunks(relay: Relay) -> int:
    with psycopg.connect(relay.process.environment["RELAY_DATABASE_URL"]) as connection:
        [count] = connection.execute("SELECT count(*) FROM relay.chunks").fetchone() or [0]
    return int(count)


def token(relay: Relay, *arguments: str) -> str:
    """A new token."""
    command = [sys.executable, "-m", "services.relay", "token", "create", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | relay.process.environment
    made = subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True)
    return made.stdout.strip().splitlines()[-1].split()[-1]


@contextmanager
def requested(
    relay: Relay, head: str, token: str, body: bytes = b"", *, count: int = 1
) -> Iterator[list[socket.socket]]:
    """Connections that have sent a request and read nothing of the answer."""
    port = int(relay.url.rpartition(":")[2])
    opened = []
    for _ in range(count):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        connection.connect(("127.0.0.1", port))
        connection.sendall(f"{head}\r\nHost: relay\r\nAuthorization: Bearer {token}\r\n\r\n".encode() + body)
        opened.append(connection)
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()


@pytest.fixture
def names(tmp_path: Path) -> Path:
    if not may_have_own_names(tmp_path):
        pytest.skip("NOT TESTED: name servers need root, for a mount namespace and port 53")
    return tmp_path


def test_name_servers_that_do_not_respond_delay_no_other_name(names: Path, new_relay: Callable[..., Relay]) -> None:
    wrapper = own_names(
        names,
        hosts="127.0.0.1 localhost\n127.0.0.1 in-hosts\n",
        resolv_conf="nameserver 127.0.53.53\nsearch ns.svc.cluster.local svc.cluster.local\noptions ndots:5\n",
    )
    relay = new_relay(wrapper=wrapper)
    known = {"healthy.example": "127.0.0.1", "api.ns.svc.cluster.local": "127.0.0.1"}
    with name_server("127.0.53.53", known, absent=["cluster.local"]) as server, destination() as well:
        port = well.url.rpartition(":")[2]
        for _ in range(2):
            for number in range(60):
                relay.publish(f"http://dead-{number}.example/", Upstash_Retry_Delay="100")
        until(lambda: len({name for name in server.asked if name.startswith("dead-")}) >= 4)
        asked = time.monotonic()
        # api: resolved by the search list, as services are named in compose and Kubernetes.
        for host in ("in-hosts", "localhost", "healthy.example", "api"):
            relay.publish(f"http://{host}:{port}/{host}", Upstash_Retries="0")
        until(lambda: len(well.received) == 4, WELL_SECONDS)
        assert time.monotonic() - asked < WELL_SECONDS
        # Each failing name was looked up in the end, once at a time: 2 messages, one lookup of a few queries.
        until(lambda: len({name for name in server.asked if re.fullmatch(r"dead-\d+\.example", name)}) == 60)


def test_a_destination_that_drops_packets_delays_no_other(relay: Relay) -> None:
    with black_hole() as hole, destination() as well:
        batch(relay, hole, 700, Upstash_Timeout="30s")
        relay.publish(well.url)
        until(lambda: well.received, WELL_SECONDS)


def test_a_destination_that_drops_packets_does_not_use_all_places(new_relay: Callable[..., Relay]) -> None:
    relay = new_relay(RELAY_CONCURRENCY_MAX="20")
    with black_hole() as hole, destination(lambda _: Reply()) as well:
        ids = batch(relay, hole, 60, Upstash_Callback=f"{well.url}/callback")
        for _ in range(20):
            relay.publish(f"{well.url}/well")
        until(lambda: len(well.to("/well")) == 20, WELL_SECONDS)
        # A message that was put off had no attempt: it has used no retry, and has no callback.
        message = until(lambda: next((m for id_ in ids if (m := relay.message(id_)) and _put_off(m)), None))
        assert message is not None
        assert "too many calls wait for a connection" in message["waiting"]["detail"]
        assert (message["attempts"], message["retried"]) == ([], 0)
        assert well.to("/callback") == []


def test_a_message_that_is_put_off_repeatedly_does_not_fill_the_log(new_relay: Callable[..., Relay]) -> None:
    relay = new_relay(RELAY_CONCURRENCY_MAX="20")
    count = 300
    with black_hole() as hole:
        batch(relay, hole, count)
        until(lambda: _metric(relay, "relay_put_offs_total") >= 3 * count, 60)
        with psycopg.connect(relay.process.environment["RELAY_DATABASE_URL"]) as connection:
            [put_offs] = connection.execute("SELECT sum(count) FROM relay.put_offs").fetchone() or [0]
            [logged] = connection.execute("SELECT count(*) FROM relay.events WHERE state <> 'CREATED'").fetchone() or [
                0
            ]
        assert put_offs >= 2 * count
        assert logged <= count + 20, "one of each message, and of attempts that ended"


def test_destinations_that_do_not_read_delay_no_other_body(relay: Relay) -> None:
    with deaf() as stuck, destination() as well:
        for _ in range(16):
            assert relay.publish(stuck.url, LARGE).status_code == 200
        until(lambda: len(stuck.heads) >= 8)
        relay.publish(well.url, LARGE)
        until(lambda: [call.body for call in well.received] == [LARGE], WELL_SECONDS)


def test_readers_that_stall_delay_no_delivery_and_no_other_reader(new_relay: Callable[..., Relay]) -> None:
    relay = new_relay(RELAY_BODY_BYTES_MAX="100000", RELAY_PUBLIC_URL="http://relay.example.com")
    answer = LARGE * 2
    reading = token(relay, "reader", "--read-only")
    with destination(lambda call: Reply(200, answer if call.path == "/work" else b"{}")) as well:
        id_ = relay.publish(f"{well.url}/work", Upstash_Callback=f"{well.url}/callback").json()["messageId"]
        [call] = until(lambda: well.to("/callback"), 60)
        path = f"/v2/messages/{id_}/body/0"
        assert json.loads(call.body)["bodyUrl"].endswith(path)
        with requested(relay, f"GET {path} HTTP/1.1", reading, count=16) as readers:
            # The first bytes for one of them have arrived, so the places are in use.
            answered, _, _ = select.select(readers, [], [], patient(10))
            assert answered[0].recv(12) == b"HTTP/1.1 200"
            relay.publish(f"{well.url}/large", b"x" * 90_000)
            until(lambda: well.to("/large"), WELL_SECONDS)
            assert relay.call("GET", path).content == answer
        # Their places are free again, for the same number of readers.
        headers = {"Authorization": f"Bearer {reading}"}
        for _ in range(20):
            assert requests.get(relay.url + path, headers=headers, timeout=30).content == answer


def test_uploads_that_stall_delay_no_other_token(relay: Relay) -> None:
    other = token(relay, "other")
    with destination() as well:
        head = f"POST /v2/publish/{well.url}/stuck HTTP/1.1\r\nContent-Length: {MIB}"
        with requested(relay, head, other, b"x" * 900_000, count=16):
            until(lambda: chunks(relay) >= 8)
            assert relay.publish(f"{well.url}/whole", LARGE).status_code == 200
            until(lambda: well.to("/whole"), WELL_SECONDS)


@pytest.mark.parametrize("end", ["closes", "stops"])
def test_an_answer_that_is_interrupted_leaves_no_chunks(relay: Relay, end: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    # Long enough for the beginning of the answer to be stored on a busy machine.
    id_ = relay.publish(url, Upstash_Timeout="15s", Upstash_Retries="0").json()["messageId"]
    connection, _ = listener.accept()
    with listener, connection:
        # Otherwise the relay would close the connection for an answer without a request.
        assert connection.recv(1)
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {10 * MIB}\r\n\r\n".encode() + LARGE[: 3 * MIB])
        until(lambda: chunks(relay) > 0)
        if end == "closes":
            connection.close()
        until(lambda: relay.state(id_) == "failed", 60)
    until(lambda: chunks(relay) == 0)


def test_a_call_that_is_cancelled_leaves_no_chunks_of_its_answer(relay: Relay) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    id_ = relay.publish(f"http://127.0.0.1:{listener.getsockname()[1]}").json()["messageId"]
    connection, _ = listener.accept()
    with listener, connection:
        # Otherwise the relay would close the connection for an answer without a request.
        assert connection.recv(1)
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {10 * MIB}\r\n\r\n".encode() + LARGE[: 3 * MIB])
        until(lambda: chunks(relay) > 0)
        assert relay.call("DELETE", f"/v2/messages/{id_}").json() == {"cancelled": 1}
        until(lambda: chunks(relay) == 0)


def test_an_upload_that_is_interrupted_leaves_no_chunks(relay: Relay) -> None:
    head = f"POST /v2/publish/http://127.0.0.1:9/ HTTP/1.1\r\nContent-Length: {10 * MIB}"
    with requested(relay, head, TOKEN, LARGE[: 3 * MIB]):
        until(lambda: chunks(relay) > 0)
    until(lambda: chunks(relay) == 0)


def test_more_calls_than_the_soft_limit_of_files_are_held(new_relay: Callable[..., Relay]) -> None:
    relay = new_relay(wrapper=["sh", "-c", 'ulimit -Sn 200; exec "$@"', "sh"])
    with destination(lambda _: Reply(delay_seconds=60)) as server:
        batch(relay, server.url, 260)
        until(lambda: len(server.received) == 260, 60)
        server.released.set()
        until(lambda: "relay_in_flight 0.0" in requests.get(f"{relay.url}/metrics", timeout=30).text, 60)
    assert relay.call("GET", "/v2/dlq").json()["messages"] == []


def test_calls_beyond_the_hard_limit_of_files_wait_and_a_warning_is_logged(new_relay: Callable[..., Relay]) -> None:
    relay = new_relay(wrapper=["sh", "-c", 'ulimit -n 300; exec "$@"', "sh"])
    assert "files_few" in relay.process.log.read_text()
    with destination(lambda _: Reply(delay_seconds=1)) as server:
        ids = batch(relay, server.url, 400, Upstash_Retries="0")
        until(lambda: len(server.received) == 400, 60)
        until(lambda: all(relay.state(id_) == "delivered" for id_ in ids[-3:]), 60)
    assert relay.call("GET", "/v2/dlq").json()["messages"] == []


def _put_off(message: dict[str, Any]) -> bool:
    return bool(message.get("waiting", {}).get("reason") == "put_off")


def _metric(relay: Relay, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", requests.get(f"{relay.url}/metrics", timeout=30).text, re.MULTILINE)
    return float(found[1]) if found else 0.0
