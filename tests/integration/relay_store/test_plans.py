"""With a million messages, every loop and every answer reads by an index."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import orjson
import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg_pool import AsyncConnectionPool

from services.relay.options import NO_OPTIONS
from services.relay.protocol.filters import Filters
from services.relay.store import written
from services.relay.store.database import Database, queries
from services.relay.store.encryption import Encryption
from services.relay.store.filtering import filtered, parameters
from services.relay.store.written import claims
from tests.infra.postgres import PostgresServer
from tests.integration.relay_store.conftest import OWNER, Stores, draft

# Of 1,000,000: ended, waiting for a distant time with and without a key, queued, and some that are due.
_FILL = """
ALTER TABLE relay.messages_p1 SET UNLOGGED;
INSERT INTO relay.messages (id, period, kind, protocol, url, method, body, body_size, sealed, retries_max, timeout_ms,
  on_unknown, caller_ip, label, labels, queue, flow_key, created_at, not_before, state, holds, due_at, ended_at)
SELECT 'msg_' || lpad(n::text, 8, '0'), 1, 'message', 2, 'https://example.com/' || n % 100, 'POST', '', 0, '\\x', 3, 1000,
  'retry', '', CASE WHEN n % 10 IN (0, 3) THEN 'l' || n % 50000 END,
  CASE WHEN n % 10 IN (0, 3) THEN ARRAY['l' || n % 50000] ELSE '{}' END,
  CASE WHEN n % 20 = 1 THEN 'q' || n % 3 END, CASE WHEN n % 20 = 2 THEN 'k' || n % 100 END, now(), now(),
  CASE WHEN n % 10 > 2 THEN 'delivered' WHEN n % 20 = 1 THEN 'queued' ELSE 'waiting' END, false,
  CASE WHEN n > 999000 THEN now() ELSE now() + interval '1 day' END, CASE WHEN n % 10 > 2 THEN now() END
FROM generate_series(1, 1000000) AS n;
INSERT INTO relay.flow_keys (key, parallelism, ready_at) SELECT 'k' || n, 2, now() FROM generate_series(0, 99) AS n;
INSERT INTO relay.flow_keys (key, updated_at)
SELECT 'idle' || n, now() - n * interval '1 second' FROM generate_series(1, 100000) AS n;
INSERT INTO relay.flow_limits SELECT key, parallelism, rate, period_seconds, cools FROM relay.flow_keys;
INSERT INTO relay.queues (name) SELECT 'q' || n FROM generate_series(0, 2) AS n;
INSERT INTO relay.events (at, message_id, state, url, method, labels, caller_ip, retries_max, timeout_ms)
SELECT now() - n * interval '1 microsecond', 'msg_' || lpad(n::text, 8, '0'), 'CREATED', 'https://example.com/', 'POST', '{}', '', 3, 1000
FROM generate_series(1, 100000) AS n;
INSERT INTO relay.deduplications
SELECT 'd' || n, 'msg_' || n, now() + n * interval '1 ms' FROM generate_series(1, 100000) AS n;
INSERT INTO relay.chunks SELECT 'c' || n, 0, '' FROM generate_series(1, 100000) AS n;
INSERT INTO relay.answers SELECT 'msg_' || n, 0, 'a' || n, 1, '{}' FROM generate_series(1, 100000) AS n;
INSERT INTO relay.put_offs (message_id, error) SELECT 'msg_' || n, '' FROM generate_series(1, 100000) AS n;
INSERT INTO relay.schedules (id, cron, destination, sealed, body, protocol, caller_ip, next_at)
SELECT 's' || n, '* * * * *', 'https://example.com', '', '', 2, '', now() + n * interval '1 s'
FROM generate_series(1, 20000) AS n;
INSERT INTO relay.dead_letters (id, message_id, kind, protocol, url, method, body, body_size, sealed, retries_max,
  timeout_ms, on_unknown, caller_ip, labels, created_at, not_before, response_status, response_header, response_body)
SELECT extract(epoch FROM now())::bigint * 1000 || '-' || n, 'msg_' || n, 'message', 2, '', 'POST', '', 0, '', 3, 1000,
  'retry', '',
  '{}', now(), now(), 500, '{}', '' FROM generate_series(1, 100000) AS n;
VACUUM ANALYZE relay.messages_p1, relay.events, relay.flow_keys, relay.flow_limits, relay.deduplications, relay.chunks, relay.answers,
  relay.put_offs, relay.schedules, relay.dead_letters;
"""
_READ = """
SELECT sum(seq_tup_read)::bigint FROM pg_stat_user_tables WHERE schemaname = 'relay' AND relname ~ '^(messages_p1|events_)'
"""


@pytest.fixture(scope="module")
def million(postgres: PostgresServer, relay_template: str) -> Iterator[str]:
    with postgres.database(template=relay_template) as name:
        with psycopg.connect(postgres.url(name), autocommit=True) as connection:
            connection.execute("SET synchronous_commit = off")
            connection.execute("SET max_parallel_workers_per_gather = 0")
            for statement in _FILL.split(";\n"):
                connection.execute(statement)
        yield postgres.url(name)


def scanned(plan: dict[str, Any]) -> set[str]:
    """The large tables that a plan scans sequentially."""
    found = {plan["Relation Name"]} if plan["Node Type"] == "Seq Scan" else set()
    for child in plan.get("Plans", ()):
        found |= scanned(child)
    today = f"{datetime.now(UTC):%Y%m%d}"
    return found & {
        "messages_p1", f"events_{today}", f"dead_letters_{today}", "deduplications", "chunks", "answers",
        "schedules", "flow_keys", "flow_limits", "put_offs",
    }  # fmt: skip


def tuples_read(url: str) -> int:
    """The number of rows of the large tables that closed connections have scanned sequentially."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(_READ).fetchone()
    assert row is not None
    return int(row[0])


_IDS = ["msg_00000010", "msg_00000020"]
_HELD = claims((one, datetime(2026, 1, 1, tzinfo=UTC)) for one in _IDS)
_VERDICTS = orjson.dumps(
    [
        {
            "id": one,
            "started_at": datetime(2026, 1, 1, tzinfo=UTC),
            "state": "delivered",
            "retried": 0,
            "delay_seconds": 0.0,
        }
        for one in _IDS
    ]
).decode()
_NEW = orjson.dumps([written.message("msg_new", draft(queue="q1"), b"")]).decode()


# Rows of partitions of a day. They are made when a test runs: the tables have the partitions of that day, and tests that
# were collected the day before run after midnight as well.
def _logged() -> str:
    return orjson.dumps([{"n": 0, "id": one, "at": f"{datetime.now(UTC)}", "state": "RETRY"} for one in _IDS]).decode()


def _buried() -> str:
    id_ = f"{int(datetime.now(UTC).timestamp() * 1000)}-x"
    return orjson.dumps([{"id": id_, "message_id": _IDS[0], "status": 500, "header": {}, "body": ""}]).decode()


_ANSWERS = orjson.dumps([{"message_id": _IDS[0], "attempt": 0, "key": "a", "size": 1, "header": {}}]).decode()
# The limits of the bytes that statements may read or show.
_BYTES = {"bytes_max": 1_000_000, "body_bytes_max": 65536, "answer_bytes_max": 1_000_000}
_ANYTHING = parameters(Filters()) | {"limit": 100, "cursor_id": None, "cursor_at": None} | _BYTES
_CLAIMING = {"batch_max": 100, "bytes_max": 1_000_000, "owner": OWNER}
_SWEEPING = _CLAIMING | {"lapsed": True, "left_seconds": 5.0, "unknown_max": 10}
_PRUNING = {
    "batch_max": 100, "keep_seconds": 60.0, "age_seconds": 3600.0, "answer_seconds": 3600.0, "days": 3.0,
    "grace_seconds": 10.0, "queues_max": 100, "after": "idle1", "upto": "idle10010",
}  # fmt: skip
_FLOW = {"keys": ["k1"], "parallelisms": [2], "rates": [None], "periods": [1], "cools": [True], "dues": [0.0]}
_TOUCHED = {"keys": ["k1"], "cool": [None], "answered": [True]}
_PERIOD = {"period": 1, "batch_max": 10, "keep_seconds": 60.0}
_NOW = datetime.now(UTC)
_FIRED = {"id": "s1", "next_at": _NOW, "now": _NOW, "message_ids": [], "error": "none", "batch_max": 50}

# The statements of loops, calls and pages, with values. Each is planned and executed.
LOOPS: list[tuple[str, str, dict[str, Any]]] = [
    ("messages", "deduplicate", {"keys": ["d1", "new"], "ids": _IDS, "window_seconds": 60.0}),
    ("messages", "holder", {"key": "d1"}),
    ("messages", "insert", {"rows": _NEW}),
    ("messages", "make_queues", {"queues": ["q1"]}),
    ("messages", "set_limits", _FLOW),
    ("messages", "set_flows", _FLOW),
    ("messages", "claim", _CLAIMING),
    ("messages", "claim_keyed", _CLAIMING | {"keys_max": 100}),
    ("messages", "next_due", {}),
    ("claims", "expire", _SWEEPING),
    ("claims", "take_over", _SWEEPING),
    ("claims", "differences", {"held": _HELD, "owner": OWNER, "unknown_max": 10}),
    ("claims", "give_back", {"claims": _HELD, "owner": OWNER}),
    ("claims", "disown", {"claims": _HELD, "owner": OWNER}),
    ("messages", "finish", {"rows": _VERDICTS, "owner": OWNER}),
    ("messages", "log", {"rows": _logged}),
    ("messages", "put_off", {"ids": ["msg_1", "new"], "errors": ["one", "two"]}),
    ("messages", "attempted", {"ids": ["msg_1", "new"]}),
    ("messages", "bury", {"rows": _buried}),
    ("messages", "keep_answers", {"rows": _ANSWERS}),
    ("messages", "lock_parents", {"ids": _IDS}),
    ("messages", "leave", {"ids": _IDS}),
    ("messages", "enter", {"queues": ["q1"]}),
    ("messages", "touch_flows", _TOUCHED),
    ("messages", "unspend", {"keys": ["k1"], "started": [_NOW]}),
    ("messages", "depth", {"count_max": 100}),
    ("processes", "renew", {"owner": OWNER, "lease_seconds": 15.0}),
    ("processes", "cancellations", {"owner": OWNER}),
    ("processes", "release", {"owner": OWNER}),
    ("queues", "enter", {"queues": ["q1"]}),
    ("queues", "touch", {"keys": ["k1"]}),
    ("chunks", "write", {"key": "new", "part": 0, "content": b""}),
    ("chunks", "read", {"key": "c1", "part": 0}),
    ("chunks", "release", {"keys": ["c1", "c2"]}),
    ("schedules", "due", _FIRED),
    ("schedules", "fired", _FIRED),
    ("schedules", "broken", _FIRED),
    ("schedules", "later", _FIRED),
    ("schedules", "next", {}),
    ("signing_keys", "read", {}),
    ("signing_keys", "seed", {"sealed": b""}),
    ("topics", "select", {"name": "t"}),
    ("tokens", "find", {"sha256": b""}),
    ("database", "configure", {"pid": 1, "statement_ms": 1000, "lock_ms": 1000, "idle_ms": 1000}),
    ("janitor", "try_lock", {"lock_id": 1}),
    ("janitor", "set_lock_timeout", {"lock_timeout_ms": 200}),
    ("janitor", "make_partitions", {}),
    ("janitor", "period_is_over", {"period_seconds": 600.0}),
    ("janitor", "open_period", {}),
    ("janitor", "closable", _PERIOD),
    ("janitor", "move_waiting", _PERIOD),
    ("janitor", "close_period", _PERIOD),
    ("janitor", "drop_events", {"days": 3.0}),
    ("janitor", "drop_dead_letters", {"days": 3.0}),
    *(
        ("janitor", f"prune_{noun}", _PRUNING)
        for noun in (
            "long",
            "chunks",
            "answers",
            "deduplications",
            "cancellations",
            "put_offs",
            "processes",
            "flow_keys",
        )
    ),
    ("janitor", "keys_upto", _PRUNING),
    ("janitor", "free_places_of_ended", _PRUNING),
    ("janitor", "add_missing_owners", {}),
    ("janitor", "wake_flow_keys", _PRUNING),
    ("janitor", "queued_in", _PRUNING),
    ("janitor", "make_queues", {"queues": ["q1"]}),
]
# The statements that search a large table for the answer to a request.
ANSWERS: list[tuple[str, str, dict[str, Any]]] = [
    ("messages", "cancel", {"ids": _IDS}),
    ("message_views", "get", {"id": _IDS[0], "keep_seconds": 60.0} | _BYTES),
    ("message_views", "state", {"id": _IDS[0], "keep_seconds": 60.0}),
    ("message_views", "ahead", {"queue": "q1", "id": _IDS[0], "holds": False}),
    ("message_views", "select_ids", _ANYTHING | {"message_ids": _IDS}),
    ("message_views", "select_ids", _ANYTHING | {"label": ["l10", "l20"]}),
    ("message_views", "select_ids", _ANYTHING | {"flow_key": ["k2"]}),
    ("message_views", "select_ids", _ANYTHING | {"queue": ["q1"]}),
    ("events", "newest", _ANYTHING),
    ("events", "newest", _ANYTHING | {"cursor_at": datetime(2100, 1, 1, tzinfo=UTC), "cursor_id": 5}),
    ("events", "newest", _ANYTHING | {"message_ids": _IDS}),
    ("events", "earliest", _ANYTHING),
    ("events", "attempts", {"message_id": _IDS[0]}),
    ("events", "told", {"ids": _IDS} | _BYTES),
    ("dead_letters", "newest", _ANYTHING),
    ("dead_letters", "earliest", _ANYTHING),
    ("dead_letters", "matching", _ANYTHING),
    ("dead_letters", "sealed", {"ids": ["1"]}),
    ("dead_letters", "shown", {"ids": ["1"], "trim_body": None} | _BYTES),
    ("dead_letters", "take", {"ids": ["1"]} | _BYTES),
    ("dead_letters", "delete", {"ids": ["1"]}),
    ("queues", "select", {"name": "q1"}),
    ("queues", "cancel_queued", {"name": "nobody", "batch_max": 100}),
    ("flow_keys", "select", {"key": "k2", "text": "", "keys_max": 100}),
    ("flow_keys", "all_calls", {}),
    ("chunks", "answer", {"message_id": "msg_1", "attempt": 0}),
    ("labels", "held", {"labels": ["l10", "l20"], "letters_max": 100}),
    ("labels", "next", {"after": "l10", "limit": 100}),
    ("contents", "dead_letters", {"labels": ["l10"]}),
    ("contents", "ended", {"labels": ["l13", "webhook-l13"]}),
    ("contents", "messages", {"labels": ["l13", "webhook-l13"]}),
    ("contents", "answers", {"ids": _IDS}),
    ("contents", "events", {"ids": _IDS}),
    ("schedules", "states", {"ids": _IDS}),
]
_PART = "a part of other statements"
_BY_KEY = "request only: one row by its primary key"
_FEW = "request only: of a table that people fill by hand"
# Statements that no loop runs and that search no large table.
REQUEST_ONLY: dict[tuple[str, str], str] = {
    ("filtering", "common"): _PART,
    ("columns", "facts"): _PART,
    **{(noun, "filters"): _PART for noun in ("events", "dead_letters", "message_views")},
    **{("queues", name): _BY_KEY for name in ("upsert", "set_paused", "lock", "delete")},
    **{("flow_keys", name): _BY_KEY for name in ("pause", "resume", "pin", "unpin", "reset_rate", "set_cooling")},
    **{("schedules", name): _BY_KEY for name in ("upsert", "delete", "pause", "lock", "resume")},
    ("schedules", "select"): "request only: the list of all schedules, which the protocol has without pages",
    ("signing_keys", "lock"): _BY_KEY,
    ("signing_keys", "rotate"): _BY_KEY,
    **{("tokens", name): _FEW for name in ("create", "all", "revoke")},
    **{
        ("topics", name): _FEW
        for name in ("make", "make_as", "follow", "set_headers", "free_names", "unname", "add", "lock", "remove",
                     "changed", "delete_empty", "delete")
    },
}  # fmt: skip
# The maximum of 8 KiB pages that a statement may read: to open a period reads 4,000 of the catalog. The large partition
# has 30,000, and a complete scan of one of its partial indexes reads about as many.
PAGES_MAX = 6_000


def statement(noun: str, name: str) -> str:
    statements = filtered(noun) if "filters" in queries(noun) else queries(noun)
    return statements[name]


def explained(url: str, options: str, noun: str, name: str, values: dict[str, Any]) -> dict[str, Any]:
    """The plan of a statement, whose effects are rolled back."""
    values = {key: value() if callable(value) else value for key, value in values.items()}
    with psycopg.connect(url) as connection:
        row = connection.execute(
            f"EXPLAIN ({options}, FORMAT JSON) {statement(noun, name)}", values, prepare=False
        ).fetchone()
        connection.rollback()
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


def test_every_statement_is_planned_here_or_listed_as_one_of_requests() -> None:
    """A new statement must be listed: one that a loop runs in LOOPS."""
    folder = resources.files("services.relay.store")
    nouns = [file.name.removesuffix(".sql") for file in folder.iterdir() if file.name.endswith(".sql")]
    there = {(noun, name) for noun in nouns for name in queries(noun)}
    planned = {(noun, name) for noun, name, _ in LOOPS + ANSWERS}
    assert planned | REQUEST_ONLY.keys() == there
    assert planned.isdisjoint(REQUEST_ONLY)


@pytest.mark.parametrize(("noun", "name", "values"), LOOPS + ANSWERS)
def test_no_statement_scans_a_large_table(million: str, noun: str, name: str, values: dict[str, Any]) -> None:
    plan = explained(million, "COSTS", noun, name, values)
    assert scanned(plan) == set(), plan


@pytest.mark.parametrize(("noun", "name", "values"), LOOPS)
def test_no_loop_reads_more_pages_than_its_batch_needs(
    million: str, noun: str, name: str, values: dict[str, Any]
) -> None:
    """Executed, as no plan shows what a function does, and an index may be scanned completely too."""
    plan = explained(million, "ANALYZE, BUFFERS", noun, name, values)
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < PAGES_MAX, plan


@pytest.mark.parametrize("labels", [1, 200])
def test_the_removal_of_contents_reads_a_bounded_number_of_pages_for_each_label(million: str, labels: int) -> None:
    """Executed, with the maximum of labels in a request. All messages of each have ended."""
    asked = {"labels": [f"l{n * 10 + 3}" for n in range(labels)], "ids": _IDS}
    for name in ("dead_letters", "ended", "messages", "answers", "events"):
        plan = explained(million, "ANALYZE, BUFFERS", "contents", name, asked)
        # 20 messages per label, with the index pages that lead to them. Each message is updated.
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 500 + 500 * labels, (name, plan)


def test_the_newest_page_scans_the_index_of_time_backwards(million: str) -> None:
    with psycopg.connect(million) as connection:
        row = connection.execute(
            f"EXPLAIN (COSTS OFF) {filtered('events')['newest']}", _ANYTHING, prepare=False
        ).fetchall()
    assert any("Index Scan Backward using events_" in line[0] for line in row), row


def test_the_loops_scan_no_large_table_when_they_run(million: str) -> None:
    """Executed often enough to be prepared with a generic plan, and with the effects of functions, which no plan shows."""

    async def story() -> list[int]:
        async with AsyncConnectionPool(million, min_size=1, max_size=1, open=False) as pool:
            stores = Stores(Database(pool), Encryption(Fernet.generate_key().decode()))
            counts = []
            for n in range(12):
                [made] = await stores.accept(draft(labels=(f"own-{n}",), queue="q0"))
                await stores.messages.cancel([made])
                claimed = await stores.claim(5)
                await stores.finish([replace(one, options=NO_OPTIONS) for one in claimed])
                await stores.views.select_ids(Filters(label=("l10",)), 10)
                await stores.events.list(Filters(message_ids=(made,)))
                await stores.events.list(Filters(count=10))
                await stores.messages.next_due_seconds()
                await stores.claims.expire(10)
                await stores.claims.differences([])
                await stores.queues.pause("q2")
                await stores.queues.resume("q2")
                counts.append(len(claimed))
            return counts

    before = tuples_read(million)
    counts = asyncio.run(story())
    assert all(counts), "there was work each time"
    after = tuples_read(million)
    assert after - before < 1000
    with psycopg.connect(million) as connection:
        connection.execute("SELECT count(*) FROM relay.messages_p1 WHERE url = ''")
    assert tuples_read(million) - after >= 1_000_000, "the count would show it"
