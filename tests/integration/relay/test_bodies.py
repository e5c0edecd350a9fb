"""Large bodies through a real relay: byte-identical in both directions, in bounded memory, and removed when no row
refers to them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import psycopg
import pytest
import requests
from qstash import Receiver

from tests.destination import Destination, Received, Reply, destination
from tests.integration.relay.conftest import CURRENT_KEY, NEXT_KEY, TOKEN, Relay
from tests.wait import until

MIB = 1024 * 1024
# Text, because the vendor's Receiver accepts only text.
LARGE = os.urandom(25 * MIB).hex().encode()
# One byte less, so that it is not divisible by 3, and the base64 of its last piece is padded.
LARGE_ANSWER = os.urandom(50 * MIB - 1)
# A busy machine needs time for bodies of 50 MB.
PATIENCE_SECONDS = 120.0


def rows(relay: Relay, statement: str) -> list[tuple[object, ...]]:
    """The result of a query of the relay's database."""
    with psycopg.connect(relay.process.environment["RELAY_DATABASE_URL"]) as connection:
        return connection.execute(statement).fetchall()


def stored_bodies(relay: Relay) -> int:
    [(count,)] = rows(relay, "SELECT count(DISTINCT key) FROM relay.chunks")
    return int(str(count))


@contextmanager
def answering(answer: bytes, status: int = 200) -> Iterator[Destination]:
    """A destination with this answer at `/work`, and 200 at all other paths."""
    with destination(lambda call: Reply(status, answer) if call.path.startswith("/work") else Reply()) as server:
        yield server


def called_back(server: Destination, count: int = 1) -> list[Received]:
    return until(lambda: found if len(found := server.to("/callback")) >= count else [], PATIENCE_SECONDS)


def test_50_mb_in_and_out_are_byte_identical_and_signed(relay: Relay) -> None:
    with answering(LARGE_ANSWER) as server:
        published = relay.publish(f"{server.url}/work", LARGE, Upstash_Callback=f"{server.url}/callback")
        assert published.status_code == 200, published.text
        [call] = called_back(server)
        [delivered] = server.to("/work")
        until(lambda: stored_bodies(relay) == 0)
    assert delivered.headers["Content-Length"] == str(len(LARGE))
    assert delivered.body == LARGE
    content = json.loads(call.body)
    assert base64.b64decode(content["body"]) == LARGE_ANSWER
    assert base64.b64decode(content["sourceBody"]) == LARGE
    assert "bodyTruncated" not in content
    receiver = Receiver(CURRENT_KEY, NEXT_KEY)
    for received in (delivered, call):
        receiver.verify(
            signature=received.headers["Upstash-Signature"],
            body=received.body.decode(),
            url=server.url + received.path,
        )


def test_four_of_50_mb_at_once_take_little_memory(relay: Relay) -> None:
    pid = relay.process.pid
    with answering(LARGE_ANSWER) as server:
        # One delivery first, so that all modules and buffers are loaded.
        relay.publish(f"{server.url}/work", LARGE, Upstash_Callback=f"{server.url}/callback")
        called_back(server)
        process = psutil.Process(pid)
        before, peak = process.memory_info().rss, 0
        ended = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not ended.wait(0.02):
                peak = max(peak, process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(4) as threads:
            answers = threads.map(
                lambda _: relay.publish(f"{server.url}/work", LARGE, Upstash_Callback=f"{server.url}/callback"),
                range(4),
            )
            assert [answer.status_code for answer in answers] == [200] * 4
        calls = called_back(server, 5)
        ended.set()
        watcher.join()
    assert {hashlib.sha256(call.body).digest() for call in calls if call.body} != set()
    assert all(base64.b64decode(json.loads(call.body)["body"]) == LARGE_ANSWER for call in calls)
    assert (peak - before) / MIB < 120


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused_and_not_stored(new_relay: Callable[..., Relay], chunked: bool) -> None:
    relay = new_relay(RELAY_BODY_BYTES_MAX="200000")
    body = b"x" * 200_001
    with destination() as server:
        address = f"{relay.url}/v2/publish/{server.url}"
        answer = relay.session.post(
            address, data=iter([body[:100_000], body[100_000:]]) if chunked else body, timeout=30
        )
        assert answer.status_code == 413
        assert answer.json() == {"error": "the body is larger than 200000 bytes"}
        assert relay.publish(server.url, body[:-1]).status_code == 200
        until(lambda: [call.body for call in server.received] == [body[:-1]])
        until(lambda: stored_bodies(relay) == 0)


def test_bodies_in_a_queue_that_is_deleted_are_removed(relay: Relay) -> None:
    assert relay.call("POST", "/v2/queues/q/pause").status_code == 200
    assert relay.call("POST", "/v2/enqueue/q/http://127.0.0.1:9/", data=b"x" * MIB).status_code == 200
    assert stored_bodies(relay) == 1
    assert relay.call("DELETE", "/v2/queues/q").status_code == 200
    until(lambda: stored_bodies(relay) == 0)


def test_an_upload_that_is_interrupted_commits_nothing(relay: Relay) -> None:
    with destination() as server:
        with socket.create_connection(("127.0.0.1", int(relay.url.rpartition(":")[2]))) as connection:
            connection.sendall(
                f"POST /v2/publish/{server.url}/broken HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer {TOKEN}\r\n"
                f"Content-Length: {10 * MIB}\r\n\r\n".encode()
                + b"x" * 3 * MIB
            )
            until(lambda: stored_bodies(relay) == 1)
        relay.publish(f"{server.url}/whole")
        until(lambda: server.to("/whole"))
        assert [call.path for call in server.received] == ["/whole"]
    assert rows(relay, "SELECT count(*) FROM relay.messages WHERE url LIKE '%/broken'") == [(0,)]


def test_an_answer_too_large_for_its_callback_is_fetched_completely(new_relay: Callable[..., Relay]) -> None:
    relay = new_relay(RELAY_BODY_BYTES_MAX="1000000", RELAY_PUBLIC_URL="https://relay.example.com/")
    answer = os.urandom(2_500_001)
    with answering(answer) as server:
        published = relay.publish(f"{server.url}/work", Upstash_Callback=f"{server.url}/callback").json()
        [call] = called_back(server)
    content = json.loads(call.body)
    assert content["bodyTruncated"] is True
    assert base64.b64decode(content["body"]) == answer[:1_000_000]
    path = f"/v2/messages/{published['messageId']}/body/0"
    assert content["bodyUrl"] == "https://relay.example.com" + path
    whole = relay.session.get(relay.url + path, timeout=30)
    assert (whole.status_code, whole.headers["Content-Type"]) == (200, "application/json")
    assert whole.content == answer
    assert (
        relay.session.get(f"{relay.url}{path}", headers={"Authorization": "Bearer no"}, timeout=30).status_code == 401
    )
    assert relay.session.get(f"{relay.url}{path[:-1]}1", timeout=30).status_code == 404


def test_a_stored_answer_that_is_interrupted_ends_its_connection(new_relay: Callable[..., Relay]) -> None:
    relay = new_relay(RELAY_BODY_BYTES_MAX="1000000", RELAY_PUBLIC_URL="https://relay.example.com/")
    with answering(os.urandom(2_500_001)) as server:
        published = relay.publish(f"{server.url}/work", Upstash_Callback=f"{server.url}/callback").json()
        called_back(server)
    with psycopg.connect(relay.process.environment["RELAY_DATABASE_URL"]) as connection:
        connection.execute("DELETE FROM relay.chunks WHERE part = 2")
    # No other bytes may follow in place of the missing rest.
    with pytest.raises(requests.exceptions.RequestException):
        relay.call("GET", f"/v2/messages/{published['messageId']}/body/0")


def test_an_answer_over_its_own_limit_is_truncated_and_marked(new_relay: Callable[..., Relay]) -> None:
    relay = new_relay(RELAY_BODY_BYTES_MAX="10000", RELAY_ANSWER_BYTES_MAX="1000000")
    with answering(b"y" * 1_000_001) as server:
        relay.publish(f"{server.url}/work", Upstash_Callback=f"{server.url}/callback")
        [call] = called_back(server)
    content = json.loads(call.body)
    assert content["bodyTruncated"] is True
    assert "larger than 1000000 bytes" in content["error"]
    assert "bodyUrl" not in content
    assert base64.b64decode(content["body"]) == b"y" * 10_000


def test_a_dead_letter_keeps_the_large_bodies(relay: Relay) -> None:
    body, answer = b"b" * 100_000, b"a" * 2_000_000
    with answering(answer, status=500) as server:
        relay.publish(
            f"{server.url}/work", body, Upstash_Retries="0", Upstash_Failure_Callback=f"{server.url}/callback"
        )
        [call] = called_back(server)
        content = json.loads(call.body)
        assert base64.b64decode(content["body"]) == answer
        assert base64.b64decode(content["sourceBody"]) == body
        # The callback's own body is removed after its delivery. These two remain.
        until(lambda: stored_bodies(relay) == 2)
    [(digest, request, response)] = rows(
        relay,
        "SELECT body_sha256, (SELECT string_agg(content, '' ORDER BY part) FROM relay.chunks WHERE key = body_key),"
        " (SELECT string_agg(content, '' ORDER BY part) FROM relay.chunks WHERE key = response_key)"
        " FROM relay.dead_letters",
    )
    assert (digest, request, response) == (hashlib.sha256(body).digest(), body, answer)
    [letter] = relay.call("GET", "/v2/dlq").json()["messages"]
    assert relay.call("DELETE", f"/v2/dlq/{letter['dlqId']}").status_code == 200
    until(lambda: stored_bodies(relay) == 0)


def test_the_retry_of_a_dead_letter_removes_its_answer_and_keeps_its_body(relay: Relay) -> None:
    body, answer = b"b" * 100_000, b"a" * 2_000_000
    with answering(answer, status=500) as server:
        relay.publish(f"{server.url}/work", body, Upstash_Retries="0")
        [letter] = until(lambda: relay.call("GET", "/v2/dlq").json()["messages"])
        path = f"/v2/dlq/retry/{letter['dlqId']}"
        taken = relay.publish(server.url, Upstash_Deduplication_Id="taken", Upstash_Delay="1h").json()["messageId"]
        again = relay.call("POST", path, headers={"Upstash-Deduplication-Id": "taken"})
        assert (again.status_code, again.json()) == (202, {"messageId": taken, "deduplicated": True})
        assert stored_bodies(relay) == 2
        assert relay.call("POST", path, headers={"Upstash-Delay": "1h"}).status_code == 201
        until(lambda: stored_bodies(relay) == 1)
    assert rows(
        relay, "SELECT body_size FROM relay.messages JOIN relay.chunks ON key = body_key WHERE ended_at IS NULL"
    ) == [(100_000,)]


def test_cancelling_removes_the_stored_body(relay: Relay) -> None:
    message_id = relay.publish("https://example.com", b"x" * 100_000, Upstash_Delay="1h").json()["messageId"]
    assert stored_bodies(relay) == 1
    assert relay.session.delete(f"{relay.url}/v2/messages/{message_id}", timeout=10).json() == {"cancelled": 1}
    assert stored_bodies(relay) == 0


def test_a_schedules_large_body_is_stored_once_and_removed_with_it(relay: Relay) -> None:
    body = os.urandom(200_000)

    def schedule(server: Destination, content: bytes, cron: str = "* * * * * *") -> int:
        headers = {"Upstash-Cron": cron, "Upstash-Schedule-Id": "large"}
        return relay.call("POST", f"/v2/schedules/{server.url}/work", data=content, headers=headers).status_code

    with destination() as server:
        assert schedule(server, body, cron="never") == 400
        assert stored_bodies(relay) == 0
        assert schedule(server, body) == 200
        received = until(lambda: server.received[1:] and list(server.received))
        assert {one.body for one in received} == {body}
        assert rows(relay, "SELECT length(body), body_size FROM relay.schedules") == [(0, 200_000)]
        assert stored_bodies(relay) == 1
        assert schedule(server, body[:100_000]) == 200
        until(lambda: server.received[-1].body == body[:100_000])
        until(lambda: stored_bodies(relay) == 1)
        assert relay.call("DELETE", "/v2/schedules/large").status_code == 200
        until(lambda: stored_bodies(relay) == 0)


def test_content_based_deduplication_includes_the_stored_body(relay: Relay) -> None:
    def publish(body: bytes) -> tuple[int, str]:
        answer = relay.publish(
            "https://example.com", body, Upstash_Delay="1h", Upstash_Content_Based_Deduplication="true"
        )
        return answer.status_code, answer.json()["messageId"]

    first = publish(b"x" * 100_000)
    assert publish(b"x" * 100_000) == (202, first[1])
    other = publish(b"y" * 100_000)
    assert other[0] == 200
    assert other[1] != first[1]
    # The body of the earlier message is not stored a second time.
    until(lambda: stored_bodies(relay) == 2)
