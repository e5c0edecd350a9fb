"""Statements that lock messages first and update them in another CTE do not prune partitions at run time.

Postgres 18 frees the memory of that pruning when a row was changed by others before it was locked, and the locking CTE
ends first (seen in 18.6; upstream's commit 1b5dd3a fixes it): two relays on one database could crash the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import psycopg
import pytest

from services.relay.store.database import queries

OWNER, DEAD = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
PERIODS = 4
IDS = [f"{state}_{n}" for state in ("waiting", "active", "dead", "queued") for n in range(20)]
FILL = """
SELECT relay.open_period() FROM generate_series(2, %(periods)s);
INSERT INTO relay.processes VALUES (%(owner)s, 'infinity'), (%(dead)s, '-infinity');
INSERT INTO relay.messages (id, period, kind, protocol, url, method, body, body_size, sealed, retries_max, timeout_ms,
  on_unknown, caller_ip, labels, queue, not_before, due_at, state, started_at, lease_owner)
SELECT id, (SELECT max(period) FROM relay.periods), 'message', 2, 'http://x', 'POST', '', 0, '', 0, 1000, 'retry', '', '{}',
  CASE WHEN id LIKE 'queued%%' THEN 'q' END, now(), now(),
  CASE split_part(id, '_', 1) WHEN 'dead' THEN 'active' ELSE split_part(id, '_', 1) END,
  CASE WHEN id LIKE 'active%%' OR id LIKE 'dead%%' THEN '2026-01-01'::timestamptz END,
  (CASE WHEN id LIKE 'active%%' THEN %(owner)s WHEN id LIKE 'dead%%' THEN %(dead)s END)::uuid
FROM unnest(%(ids)s::text[]) AS v (id);
"""
CLAIMS = orjson.dumps([{"id": id_, "started_at": "2026-01-01T00:00:00Z"} for id_ in IDS]).decode()
STATEMENTS: list[tuple[str, str, dict[str, Any]]] = [
    ("messages", "claim", {"owner": OWNER, "batch_max": 100, "bytes_max": 1_000_000}),
    ("messages", "cancel", {"ids": IDS[:20]}),
    ("claims", "give_back", {"claims": CLAIMS, "owner": OWNER}),
    (
        "claims",
        "expire",
        {"owner": OWNER, "batch_max": 100, "unknown_max": 10, "lapsed": True, "left_seconds": 1.0},
    ),
    ("queues", "cancel_queued", {"name": "q", "batch_max": 100}),
]


@pytest.fixture
def filled(administrator: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    values = {"periods": PERIODS, "owner": OWNER, "dead": DEAD, "ids": IDS}
    psycopg.ClientCursor(administrator).execute(FILL, values)
    administrator.execute("ANALYZE relay.messages")
    # As with more messages than these.
    for method in ("hashjoin", "mergejoin", "material", "seqscan"):
        administrator.execute(f"SET enable_{method} = off".encode())
    return administrator


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def looked_at(connection: psycopg.Connection[Any], statement: str, values: dict[str, Any]) -> list[list[int]]:
    """The number of times that the statement searched each partition for rows to update, for each CTE that updates."""
    row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode(), values, prepare=False).fetchone()
    assert row is not None
    parts = [part for part in nodes(row[0][0]["Plan"]) if part.get("Subplan Name", "").startswith("CTE ")]
    changing = [part for part in parts if part["Node Type"] == "ModifyTable" and part["Operation"] == "Update"]
    return [
        [child["Actual Loops"] for child in node["Plans"]]
        for part in changing
        for node in nodes(part)
        if node["Node Type"] == "Append"
    ]


@pytest.mark.parametrize(("noun", "name", "values"), STATEMENTS)
def test_each_partition_is_searched_for_each_row(
    filled: psycopg.Connection[Any], noun: str, name: str, values: dict[str, Any]
) -> None:
    assert looked_at(filled, queries(noun)[name], values) == [[20] * (PERIODS + 1)]


def test_the_check_detects_pruning(filled: psycopg.Connection[Any]) -> None:
    noun, name, values = STATEMENTS[0]
    pruned = queries(noun)[name].replace("m.period + 0 = ", "m.period = ")
    [loops] = looked_at(filled, pruned, values)
    assert sorted(loops) == [0] * PERIODS + [20]


def test_no_other_statement_locks_messages_and_updates_them_in_another_cte() -> None:
    here = {(noun, name) for noun, name, _ in STATEMENTS}
    found = {
        (noun, name)
        for noun in (
            "messages",
            "claims",
            "queues",
            "janitor",
            "labels",
            "contents",
            "schedules",
            "processes",
            "events",
        )
        for name, text in queries(noun).items()
        if "FOR UPDATE" in text and "AS (\n  UPDATE relay.messages" in text
    }
    assert found == here
