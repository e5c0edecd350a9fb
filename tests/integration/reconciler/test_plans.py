"""With many submissions that have ended, the looks back find what they need by an index."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from services.reconciler.open_submissions import FAR_MAX
from tests.integration.reconciler.conftest import Rows
from tidings.queries import load_queries

SUBMISSIONS = 5 * FAR_MAX


@pytest.fixture
def many(rows: Rows) -> Rows:
    rows.ended_submissions(SUBMISSIONS, age_seconds=3600)
    rows.execute("VACUUM ANALYZE tidings.submissions, tidings.results")
    return rows


@pytest.mark.parametrize("name", ["first_open", "count_ended"])
def test_a_look_back_reads_no_table_from_end_to_end(many: Rows, name: str) -> None:
    after, upto = many.store.floor(3600), many.store.floor(3600 - FAR_MAX // 1000)
    statement = load_queries("services.reconciler")[name]
    with psycopg.connect(many.url) as connection:
        parameters = {"after": after, "upto": upto, "limit": FAR_MAX}
        row = connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, parameters).fetchone()
    assert row is not None
    assert _scanned(row[0][0]["Plan"]) == set(), json.dumps(row[0][0], indent=1)


def _scanned(plan: dict[str, Any]) -> set[str]:
    """The tables with rows that are read from end to end."""
    below = set[str]().union(*(_scanned(each) for each in plan.get("Plans", [])))
    read = plan["Node Type"] == "Seq Scan" and plan["Actual Rows"] > 0
    return below | {plan["Relation Name"]} if read else below
