"""A committed row becomes one event with the published columns, keyed by the submission's id."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from tests.integration.cdc.conftest import Cdc
from tidings.database.partitions import Partitions


def test_a_row_becomes_one_event_without_its_private_columns(cdc: Cdc) -> None:
    cdc.register()
    ids = [cdc.submit() for _ in range(20)]
    events = cdc.events("submissions", cdc.has(*ids))
    assert sorted(event.key for event in events) == sorted(ids)
    for event in events:
        assert event.envelope["op"] == "c"
        assert set(event.row) == {
            "id", "tenant", "target", "content_type", "channel", "traceparent", "created_at"
        }  # fmt: skip
        assert event.row["id"] == event.key
        assert "private" not in str(event.envelope)


def test_a_rolled_back_row_becomes_no_event(cdc: Cdc) -> None:
    cdc.register()
    with pytest.raises(psycopg.errors.UniqueViolation):
        cdc.execute("INSERT INTO tidings.heartbeats SELECT '2026-01-01' FROM generate_series(1, 2)")
    after = cdc.submit()
    cdc.events("submissions", cdc.has(after))
    cdc.execute("INSERT INTO tidings.heartbeats VALUES ('2026-01-02Z')")
    beats = cdc.events("heartbeats", lambda events: any("2026-01-02" in event.row["at"] for event in events))
    assert [event for event in beats if "2026-01-01" in event.row["at"]] == []


def test_rows_of_every_partition_become_events_of_the_topic_of_their_table(cdc: Cdc) -> None:
    before = [cdc.submit(since) for since in ("0", "-1 month", "50 years")]
    assert len({cdc.partitions[id_] for id_ in before}) == 3
    assert cdc.partitions[before[0]] == f"submissions_{datetime.now(UTC):%Y_%m}"
    cdc.register()
    after = [cdc.submit(since) for since in ("0", "-1 month", "50 years")]
    events = cdc.events("submissions", cdc.has(*before, *after))
    told = [(event.key, event.envelope["op"]) for event in events]
    assert sorted(told) == sorted([(id_, "r") for id_ in before] + [(id_, "c") for id_ in after])


def test_a_row_that_is_moved_out_of_the_default_partition_becomes_one_event(cdc: Cdc) -> None:
    cdc.register()
    month = f"{datetime.now(UTC):%Y_%m}"
    cdc.execute(f"DROP TABLE tidings.submissions_{month}")
    inserted = cdc.execute(
        "INSERT INTO tidings.submissions (id, tenant, target, body, content_type, fingerprint)"
        " SELECT uuidv7(), 'default', 'demo', '', 'application/json', '' FROM generate_series(1, 300) RETURNING id::text"
    )
    ids = [row[0] for row in inserted]
    cdc.events("submissions", cdc.has(*ids))
    with psycopg.connect(cdc.url, autocommit=True) as connection:
        made = Partitions(lambda statement, values: connection.execute(statement, values).fetchall()).make()
    assert (made.names, made.moved) == ([f"submissions_{month}"], 300)
    # An event for a later position of the WAL.
    after = [cdc.submit() for _ in range(20)]
    events = cdc.events("submissions", cdc.has(*ids, *after))
    assert sorted(event.key for event in events) == sorted([*ids, *after])
