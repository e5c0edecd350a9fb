"""Submissions whose time is over end once, as expired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from services.reconciler.expiry import BACK_EVERY, FAR_EVERY, LOOK_MAX, NAME, Expiry
from tests.infra.postgres import PostgresServer
from tests.integration.reconciler.conftest import Rows
from tidings.process import log
from tidings.process.telemetry import Telemetry


class Clock:
    def __init__(self) -> None:
        self.moment = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.moment


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def expiry(rows: Rows, clock: Clock) -> Expiry:
    return _expiry(rows, clock)


def _expiry(rows: Rows, clock: Clock) -> Expiry:
    return Expiry(rows.store, Telemetry(rows.metrics, log.get("test")), now=clock)


def _all(expiry: Expiry) -> None:
    while expiry.run_once():
        pass


def _expired(rows: Rows) -> set[UUID]:
    return {row[0] for row in rows.execute("SELECT submission_id FROM tidings.results WHERE outcome = 'expired'")}


def test_a_submission_that_is_due_ends_once_and_no_other_ends(rows: Rows, expiry: Expiry) -> None:
    due = rows.submit(expires_in=-1)
    rows.submit(expires_in=60)
    rows.submit()
    ended = rows.submit(expires_in=-1)
    rows.end(ended)
    _all(expiry)
    _all(expiry)
    found = rows.execute(
        "SELECT submission_id, outcome, reason, channel, metadata FROM tidings.results WHERE outcome = 'expired'"
    )
    assert found == [(due, "expired", "not ended within its expires_in", "c", {"n": 1})]
    assert rows.counted("tidings_expired_total") == 1


def test_a_submission_that_became_visible_seconds_after_its_time_is_found_by_the_next_checks(
    rows: Rows, expiry: Expiry, clock: Clock
) -> None:
    rows.submit(expires_in=-1)
    _all(expiry)
    late = rows.submit(expires_in=-10)
    _all(expiry)
    assert late not in _expired(rows)
    clock.moment += BACK_EVERY + timedelta(seconds=1)
    _all(expiry)
    assert late in _expired(rows)


def test_a_submission_that_became_visible_long_after_its_time_is_found_by_the_far_check(
    rows: Rows, expiry: Expiry, clock: Clock
) -> None:
    rows.submit(expires_in=-1)
    _all(expiry)
    # Committed late, as behind a standby that was down: the next checks do not reach it.
    late = rows.submit(expires_in=-3600)
    clock.moment += BACK_EVERY + timedelta(seconds=1)
    _all(expiry)
    assert late not in _expired(rows)
    clock.moment += FAR_EVERY
    _all(expiry)
    assert late in _expired(rows)


def test_a_check_is_bounded_and_continues_at_its_position(rows: Rows, expiry: Expiry, clock: Clock) -> None:
    """Neither ended nor open submissions make a check long, and a new process does not start at the beginning."""
    rows.ended_submissions(2 * LOOK_MAX + 10, age_seconds=3600)
    due = rows.submit(expires_in=-1)
    # The rows that are due now, and those of a check of earlier ones: at most the batch size each.
    assert expiry.run_once() == 2 * LOOK_MAX
    assert expiry.run_once() == LOOK_MAX
    assert _expired(rows) == set()
    _all(expiry)
    assert _expired(rows) == {due}
    [last] = rows.execute("SELECT expires_at FROM tidings.submissions WHERE id = %s", due)
    mark = datetime.fromtimestamp((rows.store.low_water(NAME).int >> 80) / 1000, UTC)
    assert timedelta() <= last[0] - mark < timedelta(milliseconds=2)
    later = rows.submit(expires_in=-0.5)
    _expiry(rows, clock).run_once()
    assert later in _expired(rows)


def test_the_role_cannot_insert_an_answer(rows: Rows, postgres: PostgresServer, database: str) -> None:
    id_ = rows.submit()
    with (
        psycopg.connect(postgres.url(database, role="tidings_reconciler")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(
            "INSERT INTO tidings.results (submission_id, event_id, tenant, target, outcome, submitted_at, body)"
            " VALUES (%s, %s, 'a', 't', 'succeeded', now(), 'x')",
            (id_, id_),
        )
