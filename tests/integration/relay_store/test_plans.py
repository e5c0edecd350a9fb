"""With a million messages every loop and every answer finds what it needs by an index."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg_pool import AsyncConnectionPool

from services.relay.store.database import Database, queries
from services.relay.store.filtering import filtered, parameters
from services.relay.vault import Vault
from services.relay.wire.filters import Filters
from tests.infra.postgres import PostgresServer
from tests.integration.relay_store.conftest import OWNER, Stores, draft

# Of 1,000,000: ended, waiting for a far-off time with and without a key, queued; and some that are due.
_FILL = """
ALTER TABLE relay.messages_p1 SET UNLOGGED;
INSERT INTO relay.messages (id, period, kind, protocol, url, method, body, body_size, sealed, retries_max, timeout_ms,
  on_unknown, caller_ip, label, labels, queue, flow_key, created_at, not_before, state, holds, due_at, ended_at)
SELECT 'msg_' || lpad(n::text, 8, '0'), 1, 'message', 2, 'https://example.com/' || n % 100, 'POST', '', 0, '\\x', 3, 1000,
  'retry', '', CASE WHEN n % 10 = 0 THEN 'l' || n % 50000 END, CASE WHEN n % 10 = 0 THEN ARRAY['l' || n % 50000] ELSE '{}' END,
  CASE WHEN n % 20 = 1 THEN 'q' || n % 3 END, CASE WHEN n % 20 = 2 THEN 'k' || n % 100 END, now(), now(),
  CASE WHEN n % 10 > 2 THEN 'delivered' WHEN n % 20 = 1 THEN 'queued' ELSE 'waiting' END, false,
  CASE WHEN n > 999000 THEN now() ELSE now() + interval '1 day' END, CASE WHEN n % 10 > 2 THEN now() END
FROM generate_series(1, 1000000) AS n;
INSERT INTO relay.flow_keys (key, parallelism, ready_at) SELECT 'k' || n, 2, now() FROM generate_series(0, 99) AS n;
INSERT INTO relay.queues (name) SELECT 'q' || n FROM generate_series(0, 2) AS n;
INSERT INTO relay.events (at, message_id, state, url, method, labels, caller_ip, retries_max, timeout_ms)
SELECT now() - n * interval '1 microsecond', 'msg_' || lpad(n::text, 8, '0'), 'CREATED', 'https://example.com/', 'POST', '{}', '', 3, 1000
FROM generate_series(1, 100000) AS n;
ANALYZE relay.messages, relay.messages_p1, relay.events;
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
            connection.execute(_FILL)
        yield postgres.url(name)


def scanned(plan: dict[str, Any]) -> set[str]:
    """The large tables that a plan reads from end to end."""
    found = {plan["Relation Name"]} if plan["Node Type"] == "Seq Scan" else set()
    for child in plan.get("Plans", ()):
        found |= scanned(child)
    return found & {"messages_p1", f"events_{datetime.now(UTC):%Y%m%d}"}


def tuples_read(url: str) -> int:
    """How many rows of the large tables were read from end to end so far, by connections that are closed."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(_READ).fetchone()
    assert row is not None
    return int(row[0])


_IDS = ["msg_00000010", "msg_00000020"]
_VERDICTS = orjson.dumps(
    [{"id": one, "state": "delivered", "retried": 0, "delay_seconds": 0.0} for one in _IDS]
).decode()
_ANYTHING = parameters(Filters()) | {"limit": 100, "cursor_id": None, "cursor_at": None, "bytes_max": 1_000_000}
_CLAIMING = {"batch_max": 100, "bytes_max": 1_000_000, "owner": OWNER, "logs": True}


@pytest.mark.parametrize(
    ("noun", "name", "values"),
    [
        ("messages", "claim", _CLAIMING),
        ("messages", "next_due", {}),
        ("messages", "expire", {"batch_max": 100, "logs": True}),
        ("messages", "take_over", _CLAIMING),
        ("messages", "cancel", {"ids": _IDS, "logs": True}),
        ("messages", "labelled", {"labels": ["l10"], "limit": 100}),
        ("messages", "lost", {"ids": _IDS, "owner": OWNER}),
        (
            "messages",
            "finish",
            {"rows": _VERDICTS, "owner": OWNER},
        ),
        ("messages", "leave", {"ids": _IDS}),
        ("message_views", "get", {"id": _IDS[0], "keep_seconds": 60.0, "body_bytes_max": 65536}),
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
        ("queues", "select", {"name": "q1"}),
        ("queues", "park", {"name": "q1"}),
        ("flow_keys", "select", {"key": "k2", "text": "", "keys_max": 100}),
        ("flow_keys", "all_calls", {}),
        ("janitor", "mend_holders", {"grace_seconds": 10.0, "batch_max": 100}),
        ("janitor", "mend_owners", {}),
        ("janitor", "mend_flows", {"batch_max": 100}),
        ("janitor", "queued_in", {"queues_max": 100}),
        ("janitor", "prune_chunks", {"batch_max": 100, "age_seconds": 3600.0}),
        ("janitor", "prune_flow_keys", {"batch_max": 100, "days": 3.0}),
        ("events", "told", {"ids": _IDS, "body_bytes_max": 2048, "bytes_max": 1_000_000}),
        ("schedules", "states", {"ids": _IDS}),
    ],
)
def test_no_statement_reads_a_large_table_from_end_to_end(
    million: str, noun: str, name: str, values: dict[str, Any]
) -> None:
    statements = filtered(noun) if "filters" in queries(noun) else queries(noun)
    with psycopg.connect(million) as connection:
        row = connection.execute(f"EXPLAIN (FORMAT JSON) {statements[name]}", values, prepare=False).fetchone()
    assert row is not None
    assert scanned(row[0][0]["Plan"]) == set(), row[0][0]["Plan"]


def test_the_newest_page_reads_the_index_of_time_backwards(million: str) -> None:
    with psycopg.connect(million) as connection:
        row = connection.execute(
            f"EXPLAIN (COSTS OFF) {filtered('events')['newest']}", _ANYTHING, prepare=False
        ).fetchall()
    assert any("Index Scan Backward using events_" in line[0] for line in row), row


def test_the_loops_read_no_large_table_from_end_to_end_as_they_run(million: str) -> None:
    """Executed, often enough to be prepared with a plan for any values; and what functions do, which no plan shows."""

    async def story() -> list[int]:
        async with AsyncConnectionPool(million, min_size=1, max_size=1, open=False) as pool:
            stores = Stores(Database(pool), Vault(Fernet.generate_key().decode()))
            counts = []
            for n in range(12):
                [made] = await stores.accept(draft(labels=(f"own-{n}",), queue="q0"))
                await stores.messages.cancel([made])
                claimed = await stores.claim(5)
                await stores.finish([replace(one, callback=None) for one in claimed])
                await stores.views.select_ids(Filters(label=("l10",)), 10)
                await stores.events.list(Filters(message_ids=(made,)))
                await stores.events.list(Filters(count=10))
                await stores.messages.next_due_seconds()
                await stores.messages.labelled(["l10"], 10)
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
