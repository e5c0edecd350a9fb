"""Memory is bounded by bytes: large bodies in batches, large callbacks that wait, and requests beyond the limit."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
import requests

from tests.destination import Received, Reply, destination
from tests.infra.stuck import stalled
from tests.integration.relay.conftest import Relay
from tests.integration.relay.test_bodies import called_back, rows, stored_bodies
from tests.wait import until

MIB = 1024 * 1024
# The maximum time of a busy machine for 256 MB.
PATIENCE_SECONDS = 120.0


class Peak:
    """The maximum memory of a relay above its initial memory, in MiB."""

    def __init__(self, relay: Relay) -> None:
        self._process = psutil.Process(relay.process.pid)
        self.before = self._rss()
        self.most = self.before

    def look(self) -> None:
        self.most = max(self.most, self._rss())

    @property
    def grown(self) -> float:
        return self.most - self.before

    def _rss(self) -> float:
        return float(self._process.memory_info().rss) / MIB


@contextmanager
def watched(relay: Relay) -> Iterator[Peak]:
    peak, ended = Peak(relay), threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            peak.look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def batch(relay: Relay, items: list[dict[str, Any]]) -> requests.Response:
    return relay.session.post(f"{relay.url}/v2/batch", json=items, timeout=PATIENCE_SECONDS)


def test_large_bodies_in_a_batch_are_stored_in_chunks_and_delivered_unchanged(relay: Relay) -> None:
    bodies = [f"é{n}" * 40_000 for n in range(3)] + ["small"]
    with destination() as server:
        answer = batch(relay, [{"destination": f"{server.url}/work", "body": body} for body in bodies])
        assert answer.status_code == 200, answer.text
        until(lambda: len(server.received) == len(bodies))
        assert sorted(call.body for call in server.received) == sorted(body.encode() for body in bodies)
        until(lambda: stored_bodies(relay) == 0)


def test_a_group_shares_one_stored_body_of_a_batch(relay: Relay) -> None:
    body = "x" * 100_000
    with destination() as server:
        endpoints = [{"url": f"{server.url}/{n}"} for n in range(3)]
        relay.call("POST", "/v2/topics/trio/endpoints", json={"endpoints": endpoints})
        item = {"destination": "trio", "body": body, "headers": {"Upstash-Delay": "1h"}}
        assert batch(relay, [item]).status_code == 200
        assert rows(relay, "SELECT count(*), count(DISTINCT body_key), max(length(body)) FROM relay.messages") == [
            (3, 1, 0)
        ]
        assert stored_bodies(relay) == 1


def test_the_refused_items_of_a_batch_leave_no_chunks(relay: Relay) -> None:
    body = "x" * 100_000
    item = {"destination": "https://example.com", "body": body, "headers": {"Upstash-Deduplication-Id": "once"}}
    delayed = item | {"headers": {"Upstash-Deduplication-Id": "once", "Upstash-Delay": "1h"}}
    unknown = {"destination": "no such group", "body": body}
    answer = batch(relay, [delayed, delayed, unknown]).json()
    assert answer[0]["messageId"] == answer[1]["messageId"]
    assert "error" in answer[2]
    assert stored_bodies(relay) == 1
    assert batch(relay, [item, {"destination": 1}]).status_code == 400
    assert stored_bodies(relay) == 1


def test_many_large_bodies_in_batches_take_little_memory(relay: Relay) -> None:
    body = "x" * (5 * MIB)
    held = threading.Event()

    def answer(_: Received) -> Reply:
        held.wait(PATIENCE_SECONDS)
        return Reply()

    with destination(answer) as server, watched(relay) as peak:
        items = [{"destination": f"{server.url}/work", "body": body, "headers": {"Upstash-Retries": "0"}}] * 4
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: batch(relay, items), range(9)))
        assert [answer.status_code for answer in answers] == [200] * 9
        until(lambda: len(server.received) >= 12, PATIENCE_SECONDS)
        held.set()
        until(lambda: len(server.received) == 36, PATIENCE_SECONDS)
    assert {call.body for call in server.received} == {body.encode()}
    assert peak.grown < 250


def test_large_callbacks_that_wait_take_little_memory(relay: Relay) -> None:
    answer, count = b"y" * MIB, 120
    held = threading.Event()

    def reply(call: Received) -> Reply:
        if call.path == "/callback":
            held.wait(PATIENCE_SECONDS)
        return Reply(200, b"{}" if call.path == "/callback" else answer)

    with destination(reply) as server:
        with watched(relay) as peak:
            for _ in range(count):
                headers = {"Upstash_Callback": f"{server.url}/callback"}
                assert relay.publish(f"{server.url}/work", "{}", **headers).status_code == 200
            until(lambda: len(server.to("/callback")) >= 1, PATIENCE_SECONDS)
            until(lambda: _callbacks(relay) == count, PATIENCE_SECONDS)
            assert rows(relay, "SELECT max(length(body)) FROM relay.messages") == [(2,)]
        held.set()
        calls = called_back(server, count)
    assert {base64.b64decode(json.loads(call.body)["body"]) for call in calls} == {answer}
    assert {json.loads(call.body)["sourceBody"] for call in calls} == {base64.b64encode(b"{}").decode()}
    assert peak.grown < 150


@pytest.mark.parametrize("form", ["announced", "chunked"])
def test_many_answers_that_stall_take_little_memory(new_relay: Callable[..., Relay], form: str) -> None:
    # Half of it is for the process. Only 12 MiB are counted for these calls.
    relay = new_relay(RELAY_MEMORY_BYTES_MAX=str(256 * MIB))
    count, content = 1000, b"z" * 250_000
    head = (
        f"Content-Length: {2 * len(content)}\r\n\r\n"
        if form == "announced"
        else (f"Transfer-Encoding: chunked\r\n\r\n{2 * len(content):x}\r\n")
    )
    with stalled(f"HTTP/1.1 200 OK\r\n{head}".encode() + content) as server:
        assert batch(relay, [{"destination": server.url, "body": ""}] * count).status_code == 200
        until(lambda: server.asked == count, PATIENCE_SECONDS)
        with watched(relay) as peak:
            server.release()
            # The others wait for memory: one destination may have a fifth of what is left.
            until(lambda: stored_bodies(relay) >= count * 2 // 3, PATIENCE_SECONDS)
    # Without the limit, 128 KiB of each in memory, the size of a connection's first read, would be 125 MiB.
    assert peak.grown < 85


def test_a_dead_letter_with_an_answer_of_1_mb_shows_all_of_it(relay: Relay) -> None:
    answer = "z" * (MIB - 10)
    with destination(lambda _: Reply(500, answer.encode())) as server:
        relay.publish(f"{server.url}/work", "{}", Upstash_Retries="0")
        [letter] = until(lambda: relay.call("GET", "/v2/dlq").json()["messages"])
        assert letter["responseBody"] == answer
        assert relay.call("GET", f"/v2/dlq/{letter['dlqId']}").json()["responseBody"] == answer
        assert rows(relay, "SELECT max(length(response_body)) < 70000 FROM relay.dead_letters") == [(True,)]


def test_a_request_without_memory_is_503_with_retry_after(new_relay: Callable[..., Relay]) -> None:
    # A sixteenth of 16 MiB is for batches, and half of that for one token.
    relay = new_relay(RELAY_MEMORY_BYTES_MAX=str(64 * MIB))
    first = b'[{"destination": "https://example.com", "headers": {"Upstash-Delay": "1h"}}]'
    with ThreadPoolExecutor(1) as threads:
        going_on = threading.Event()

        def slowly() -> Iterator[bytes]:
            yield first + b" " * MIB
            going_on.wait(PATIENCE_SECONDS)
            yield b" "

        # The received part is larger than the memory for batches.
        slow = threads.submit(
            lambda: relay.session.post(f"{relay.url}/v2/batch", data=slowly(), timeout=PATIENCE_SECONDS)
        )
        [refused] = until(lambda: _refused(relay, first), PATIENCE_SECONDS)
        going_on.set()
        assert slow.result().status_code == 200
    assert refused.headers["Retry-After"] == "1"
    assert "memory" in refused.json()["error"]
    assert relay.publish("https://example.com", "x" * 60_000, Upstash_Delay="1h").status_code == 200
    assert batch(relay, [{"destination": "https://example.com", "body": "x" * MIB}]).status_code == 200


def test_a_batch_that_announces_much_and_sends_little_delays_no_other(relay: Relay) -> None:
    authorization = str(relay.session.headers["Authorization"])
    head = f"POST /v2/batch HTTP/1.1\r\nHost: relay\r\nAuthorization: {authorization}\r\n"
    with socket.create_connection(("127.0.0.1", int(relay.url.rpartition(":")[2]))) as stalled:
        stalled.sendall(f"{head}Content-Length: {50 * MIB}\r\n\r\n[".encode())
        item = {"destination": "https://example.com", "body": "x" * MIB, "headers": {"Upstash-Delay": "1h"}}
        assert [batch(relay, [item]).status_code for _ in range(3)] == [200] * 3
        assert relay.call("GET", "/v2/dlq").status_code == 200


def _refused(relay: Relay, body: bytes) -> list[requests.Response]:
    """The refusal of a large batch; None if it is accepted."""
    answer = requests.post(
        f"{relay.url}/v2/batch",
        data=body + b" " * (2 * MIB),
        headers={"Authorization": str(relay.session.headers["Authorization"])},
        timeout=PATIENCE_SECONDS,
    )
    return [answer] if answer.status_code == 503 else []


def _callbacks(relay: Relay) -> int:
    [(count,)] = rows(relay, "SELECT count(*) FROM relay.messages WHERE kind = 'callback'")
    return int(str(count))
