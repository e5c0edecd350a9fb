"""Access with real tokens, and the routes that need none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from psycopg_pool import AsyncConnectionPool
from qstash import Receiver
from qstash.errors import SignatureError

from services.relay.store.database import Database
from services.relay.store.tokens import Tokens
from tests.destination import Received, destination
from tests.integration.relay.conftest import CURRENT_KEY, NEXT_KEY, TOKEN, Relay
from tests.wait import until

AT = "http://127.0.0.1:9/x"


def token(relay: Relay, name: str, *, writes: bool, limit: int | None = None) -> str:
    async def create() -> str:
        url = relay.process.environment["RELAY_DATABASE_URL"]
        async with AsyncConnectionPool(url, min_size=1, max_size=1, open=False) as pool:
            return await Tokens(Database(pool)).create(name, writes=writes, publishes_per_second=limit)

    return asyncio.run(create())


def call(relay: Relay, method: str, path: str, given: str | None, **headers: str) -> requests.Response:
    if given is not None:
        headers["Authorization"] = f"Bearer {given}"
    return requests.request(method, relay.url + path, headers=headers, timeout=10)


def test_without_a_valid_token_everything_but_health_is_401(shared: Relay) -> None:
    for path in ("/v2/messages/m", "/v2/keys", "/v2/dlq", "/v2/globalParallelism", "/v2/events"):
        for given in (None, "nobody", ""):
            answer = call(shared, "GET", path, given)
            assert (answer.status_code, list(answer.json())) == (401, ["error"]), (path, given)
    assert call(shared, "POST", f"/v2/publish/{AT}", "nobody").status_code == 401
    for path in ("/healthz", "/readyz", "/metrics"):
        assert call(shared, "GET", path, None).status_code == 200


def test_the_token_may_stand_in_the_query(shared: Relay) -> None:
    assert call(shared, "GET", f"/v2/globalParallelism?qstash_token={TOKEN}", None).status_code == 200
    assert call(shared, "GET", "/v2/globalParallelism?qstash_token=nobody", TOKEN).status_code == 401


def test_a_read_only_token_reads_and_may_not_write_nor_see_the_keys(shared: Relay) -> None:
    reader = token(shared, "reader", writes=False)
    for path in ("/v2/events", "/v2/logs", "/v2/dlq", "/v2/queues", "/v2/schedules", "/v2/topics", "/v2/flowControl"):
        assert call(shared, "GET", path, reader).status_code == 200, path
    refused = [
        ("POST", f"/v2/publish/{AT}"),
        ("POST", f"/v2/enqueue/q/{AT}"),
        ("POST", "/v2/batch"),
        ("DELETE", "/v2/messages?all=true"),
        ("POST", "/v2/queues/q/pause"),
        ("DELETE", "/v2/dlq?all=true"),
        ("POST", "/v2/dlq/retry?all=true"),
        ("POST", "/v2/keys/rotate"),
        ("GET", "/v2/keys"),
        ("POST", f"/v1/publish/{AT}"),
    ]
    for method, path in refused:
        answer = call(shared, method, path, reader)
        assert (answer.status_code, answer.json()) == (403, {"error": "forbidden: token reader may only read"}), path
    assert shared.call("GET", "/v2/queues/q").status_code == 404


def test_a_token_over_its_limit_gets_429_with_the_time_of_its_next_request(shared: Relay) -> None:
    limited = token(shared, "limited", writes=True, limit=2)
    delayed = {"Upstash-Delay": "1h"}
    # In parallel, as the limit allows 2 more in each second that passes.
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: call(shared, "POST", f"/v2/publish/{AT}", limited, **delayed), range(12)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert refused[0].headers["Burst-RateLimit-Limit"] == "2"
    assert list(refused[0].json()) == ["error"]
    # Reading is not limited, and the limit applies to this token only.
    assert call(shared, "GET", "/v2/events", limited).status_code == 200
    assert shared.call("POST", f"/v2/publish/{AT}", headers=delayed).status_code == 200
    until(lambda: call(shared, "POST", f"/v2/publish/{AT}", limited, **delayed).status_code == 200)


def test_retries_of_dead_letters_count_against_the_tokens_limit(shared: Relay) -> None:
    limited = token(shared, "retrying", writes=True, limit=1)
    labelled = {"Upstash-Retries": "0", "Upstash-Label": "again"}
    for _ in range(5):
        shared.call("POST", f"/v2/publish/{AT}", headers=labelled)
    until(lambda: len(shared.call("GET", "/v2/dlq?label=again").json()["messages"]) == 5)
    again = call(shared, "POST", "/v2/dlq/retry?label=again", limited)
    assert (again.status_code, len(again.json()["responses"])) == (201, 5)
    assert call(shared, "POST", "/v2/dlq/retry?label=again", limited).status_code == 429
    refused = call(shared, "POST", f"/v2/publish/{AT}", limited)
    assert (refused.status_code, int(refused.headers["Retry-After"]) > 2) == (429, True)


def test_the_creation_of_a_schedule_and_its_firings_count_against_the_tokens_limit(shared: Relay) -> None:
    limited = token(shared, "scheduling", writes=True, limit=1)
    every_second = {"Upstash-Cron": "* * * * * *", "Upstash-Retries": "0"}
    path = f"/v2/schedules/{AT}"
    # In parallel, as the limit allows one more in each second that passes.
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: call(shared, "POST", path, limited, **every_second), range(8)))
    assert {answer.status_code for answer in answers} == {200, 429}
    made = [answer.json()["scheduleId"] for answer in answers if answer.status_code == 200]
    until(lambda: all(shared.call("GET", f"/v2/schedules/{id_}").json().get("lastScheduleTime") for id_ in made))
    # The firings use the whole limit, so publishing is refused.
    until(lambda: call(shared, "POST", f"/v2/publish/{AT}", limited, **{"Upstash-Delay": "1h"}).status_code == 429)
    for id_ in made:
        shared.call("DELETE", f"/v2/schedules/{id_}")


def test_keys_are_shown_and_rotated(relay: Relay) -> None:
    before = relay.call("GET", "/v2/keys").json()
    assert before == {"current": CURRENT_KEY, "next": NEXT_KEY}
    after = relay.call("POST", "/v2/keys/rotate").json()
    assert after["current"] == NEXT_KEY
    assert after["next"] not in {CURRENT_KEY, NEXT_KEY}
    assert relay.call("GET", "/v2/keys").json() == after


@pytest.mark.parametrize(("method", "path"), [("GET", "/v2/nothing"), ("POST", "/v2/publish/"), ("GET", "/v9/keys")])
def test_an_unknown_path_is_404(shared: Relay, method: str, path: str) -> None:
    answer = shared.call(method, path)
    assert (answer.status_code, answer.json()) == (404, {"error": "not found"})


def test_another_method_is_405_with_the_methods_of_the_path(shared: Relay) -> None:
    answer = shared.call("PUT", "/v2/messages/m")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "DELETE, GET, HEAD, OPTIONS")
    options = shared.call("OPTIONS", "/v2/batch")
    assert (options.status_code, options.headers["Allow"], options.content) == (204, "OPTIONS, POST", b"")


def test_head_is_a_get_without_its_body(shared: Relay) -> None:
    head, get = (shared.call(method, "/v2/globalParallelism") for method in ("HEAD", "GET"))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]


def test_metrics_are_readable_by_prometheus(shared: Relay) -> None:
    answer = shared.call("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert {"relay_accepted", "relay_in_flight", "relay_queue_depth"} <= names


def test_a_rotation_reaches_another_process_within_seconds(new_relay: Callable[..., Relay]) -> None:
    one, other = new_relay(), new_relay()
    rotated = one.call("POST", "/v2/keys/rotate").json()
    # From now on the other process makes all deliveries.
    one.process.kill()
    with destination() as server:

        def signed() -> bool:
            before = len(server.received)
            other.publish(server.url, "x")
            return signed_by(rotated["current"], until(lambda: server.received[before:])[0])

        until(signed)


def signed_by(key: str, received: Received) -> bool:
    try:
        Receiver(key, key).verify(signature=received.headers["Upstash-Signature"], body=received.body.decode())
    except SignatureError:
        return False
    return True
