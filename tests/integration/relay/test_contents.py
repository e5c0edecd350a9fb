"""The removal of the contents of ended messages leaves no part of a body or an answer in the relay's tables."""

from __future__ import annotations

from pathlib import Path

import psycopg

from tests.destination import Received, Reply, destination
from tests.infra.postgres import PostgresServer
from tests.integration.relay.conftest import Relay, relays
from tests.wait import until

SECRET = b"private-prompt"


def tables(url: str) -> dict[str, int]:
    """The number of rows of each of the relay's tables that contain the secret, as text or in bytea."""
    found = {}
    with psycopg.connect(url) as connection:
        names = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'relay'::regnamespace AND relkind IN ('r', 'p')"
            " AND NOT relispartition"
        ).fetchall()
        for (name,) in names:
            row = connection.execute(
                f"SELECT count(*) FROM relay.{name} AS t WHERE t::text LIKE %s OR t::text LIKE %s".encode(),
                (f"%{SECRET.decode()}%", f"%{SECRET.hex()}%"),
            ).fetchone()
            assert row is not None
            if row[0]:
                found[name] = row[0]
    return found


def test_dead_letters_answers_and_the_log_lose_their_contents(postgres: PostgresServer, tmp_path: Path) -> None:
    def answer(received: Received) -> Reply:
        return Reply(500, b"quoted: " + received.body[:20])

    with relays(postgres, tmp_path) as start, destination(answer) as server:
        relay = start()
        url = relay.process.environment["RELAY_DATABASE_URL"]
        asked = {"Upstash_Retries": "0", "Upstash_Callback": f"{server.url}/cb", "Upstash_Callback_Retries": "0"}
        mine = relay.publish(f"{server.url}/x", SECRET, Upstash_Label="mine", **asked).json()["messageId"]
        relay.publish(f"{server.url}/x", SECRET + b" large" * 20_000, Upstash_Label="mine", **asked)
        relay.publish(f"{server.url}/x", SECRET, Upstash_Label="waiting", Upstash_Delay="1h")
        ended = "SELECT count(*) FROM relay.dead_letters WHERE labels && ARRAY['mine']"
        until(lambda: _count(url, ended) == 4, 30)
        assert tables(url).keys() >= {"messages", "dead_letters", "events", "chunks"}
        body = {"labels": ["mine", "nobody's"], "messageIds": [mine]}
        assert relay.call("POST", "/v2/contents/remove", json=body).status_code == 200
        assert _count(url, ended) == 0
        # The message that waits has another label, and needs its body.
        assert tables(url) == {"messages": 1}
        assert relay.call("POST", "/v2/contents/remove", json=body).status_code == 200


def test_a_delivered_message_with_several_labels_is_found_by_each(postgres: PostgresServer, tmp_path: Path) -> None:
    """The log has the answer of a delivered message, whose id the caller need not know."""
    with relays(postgres, tmp_path) as start, destination(lambda received: Reply(200, received.body)) as server:
        relay = start()
        url = relay.process.environment["RELAY_DATABASE_URL"]
        for labels in ("first,shared", "second,shared", "other"):
            relay.publish(f"{server.url}/x", SECRET, Upstash_Label=labels)
        until(lambda: _count(url, "SELECT count(*) FROM relay.messages WHERE state = 'delivered'") == 3, 30)
        for body, left in (({"label": "first"}, 2), ({"labels": ["shared"]}, 1), ({"labels": ["other"]}, 0)):
            assert relay.call("POST", "/v2/contents/remove", json=body).status_code == 200
            assert tables(url).get("messages", 0) == left
        assert tables(url) == {}


def _count(url: str, query: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_an_invalid_request_is_refused(relay: Relay) -> None:
    wrong: list[object] = [
        {}, {"label": ""}, {"label": 1}, {"label": "a", "messageIds": "b"}, {"label": "a\0"}, {"labels": []},
        {"labels": ["a", 1]}, {"labels": "a"}, {"labels": "a", "label": "a"}, {"labels": ["a"] * 201},
    ]  # fmt: skip
    assert [relay.call("POST", "/v2/contents/remove", json=body).status_code for body in wrong] == [400] * len(wrong)
