"""With many ended submissions, the reconciler's queries use an index."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from services.reconciler.expiry import LOOK_MAX
from services.reconciler.open_submissions import FAR_MAX, SWEEP_MAX
from services.reconciler.store import NO_ID
from tests.integration.reconciler.conftest import Rows
from tidings.database.queries import load_queries

SUBMISSIONS = 5 * FAR_MAX


@pytest.fixture
def many(rows: Rows) -> Rows:
    rows.ended_submissions(SUBMISSIONS, age_seconds=3600)
    rows.execute("VACUUM ANALYZE tidings.submissions, tidings.results")
    return rows


@pytest.mark.parametrize("name", ["open_between", "count_ended", "still_open"])
def test_a_check_of_earlier_rows_scans_no_table(many: Rows, name: str) -> None:
    after, upto = many.store.floor(3600), many.store.floor(3600 - FAR_MAX // 1000)
    statement = load_queries("services.reconciler")[name]
    with psycopg.connect(many.url) as connection:
        ids = [id_ for id_, _ in many.store.sweep(after, 0, SWEEP_MAX)]
        parameters = {"after": after, "upto": upto, "limit": FAR_MAX, "ids": ids}
        row = connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, parameters).fetchone()
    assert row is not None
    assert _scanned(row[0][0]["Plan"]) == set(), json.dumps(row[0][0], indent=1)


@pytest.mark.parametrize("ago_seconds", [31 * 86_400, 3600, 3600 - FAR_MAX // 1000])
def test_a_check_for_due_submissions_reads_at_most_its_batch_size(many: Rows, ago_seconds: float) -> None:
    statement = load_queries("services.reconciler")["due"]
    after = datetime.now(UTC) - timedelta(seconds=ago_seconds)
    with psycopg.connect(many.url) as connection:
        parameters = {"after_at": after, "after_id": NO_ID, "upto": None, "limit": LOOK_MAX}
        row = connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, parameters).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    assert _scanned(plan) == set(), json.dumps(row[0][0], indent=1)
    # Also a part of a group with the same time, and one row before each partition.
    assert plan["Actual Rows"] == LOOK_MAX
    assert _rows_read(plan, "submissions") <= LOOK_MAX + 100, json.dumps(row[0][0], indent=1)
    assert _rows_read(plan, "results") <= LOOK_MAX, json.dumps(row[0][0], indent=1)


@pytest.mark.parametrize("ago_seconds", [31 * 86_400, 3600, 3600 - FAR_MAX // 1000])
def test_a_sweep_reads_at_most_its_batch_size(many: Rows, ago_seconds: float) -> None:
    statement = load_queries("services.reconciler")["sweep"]
    with psycopg.connect(many.url) as connection:
        parameters = {"after": many.store.floor(ago_seconds), "grace_seconds": 120, "limit": SWEEP_MAX}
        row = connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, parameters).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    assert _scanned(plan) == set(), json.dumps(row[0][0], indent=1)
    assert plan["Actual Rows"] == SWEEP_MAX
    # Also one row before each partition.
    assert _rows_read(plan, "submissions") <= SWEEP_MAX + 100, json.dumps(row[0][0], indent=1)
    assert _rows_read(plan, "results") <= SWEEP_MAX, json.dumps(row[0][0], indent=1)


def _rows_read(plan: dict[str, Any], parent: str) -> float:
    """The rows that were read of all partitions of a table."""
    below = sum(_rows_read(each, parent) for each in plan.get("Plans", []))
    if not str(plan.get("Relation Name", "")).startswith(parent):
        return below
    each_loop = (
        plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
    )
    return float(below + each_loop * plan["Actual Loops"])


def _scanned(plan: dict[str, Any]) -> set[str]:
    """The tables with rows that were scanned sequentially."""
    below = set[str]().union(*(_scanned(each) for each in plan.get("Plans", [])))
    read = plan["Node Type"] == "Seq Scan" and plan["Actual Rows"] > 0
    return below | {plan["Relation Name"]} if read else below
