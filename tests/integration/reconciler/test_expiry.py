"""Submissions whose time is over end once, as expired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from services.reconciler.expiry import FAR_EVERY, Expiry
from tests.infra.postgres import PostgresServer
from tests.integration.reconciler.conftest import Rows
from tidings import log


class Clock:
    def __init__(self) -> None:
        self.moment = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.moment


def test_what_is_due_ends_once_and_nothing_else_does(rows: Rows) -> None:
    due = rows.submit(expires_in=-1)
    rows.submit(expires_in=60)
    rows.submit()
    ended = rows.submit(expires_in=-1)
    rows.end(ended)
    expiry = Expiry(rows.store, rows.metrics, log.get("test"), now=Clock())
    assert expiry.run_once() == 1
    assert expiry.run_once() == 0
    found = rows.execute(
        "SELECT submission_id, outcome, reason, channel, metadata FROM tidings.results WHERE outcome = 'expired'"
    )
    assert found == [(due, "expired", "not ended within its expires_in", "c", {"n": 1})]
    assert rows.counted("tidings_expired_total") == 1


def test_what_became_due_long_ago_is_found_by_a_far_look(rows: Rows) -> None:
    clock = Clock()
    expiry = Expiry(rows.store, rows.metrics, log.get("test"), now=clock)
    assert expiry.run_once() == 0
    # Committed late, as behind a standby that was away: the near looks do not reach it.
    late = rows.submit(expires_in=-3600)
    assert expiry.run_once() == 0
    clock.moment += FAR_EVERY + timedelta(seconds=1)
    assert expiry.run_once() == 1
    assert rows.execute("SELECT submission_id FROM tidings.results") == [(late,)]


def test_the_role_can_make_no_answer(rows: Rows, postgres: PostgresServer, database: str) -> None:
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
