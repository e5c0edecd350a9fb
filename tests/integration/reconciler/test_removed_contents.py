"""A removed content is removed once more when the relay has nothing in progress for it, and not before."""

from __future__ import annotations

from uuid import UUID

import pytest

from services.reconciler.relay_client import RelayClient, RelayUnavailableError
from services.reconciler.removed_contents import REMOVALS_MAX, RemovedContents
from tests.destination import Reply
from tests.integration.reconciler.conftest import FakeRelay, Rows
from tests.traces import tables_with
from tidings.process import log
from tidings.process.telemetry import Telemetry

SECRET = b"private-answer"


@pytest.fixture
def look(rows: Rows, relay: RelayClient) -> RemovedContents:
    return RemovedContents(rows.store, relay, Telemetry(rows.metrics, log.get("test")), grace_seconds=120)


def _removed(rows: Rows, *, age_seconds: float = 300) -> UUID:
    """An ended submission whose content was removed `seconds` ago."""
    id_ = rows.submit()
    rows.end(id_)
    assert rows.execute("SELECT tidings.remove_content('a', %s)", id_) == [("removed",)]
    _age(rows, id_, age_seconds)
    return id_


def _age(rows: Rows, id_: UUID, seconds: float) -> None:
    rows.execute(
        "UPDATE tidings.content_removals SET removed_at = removed_at - make_interval(secs => %s)"
        " WHERE submission_id = %s",
        seconds, id_,
    )  # fmt: skip


def _unsettled(rows: Rows) -> set[UUID]:
    return {
        row[0] for row in rows.execute("SELECT submission_id FROM tidings.content_removals WHERE settled_at IS NULL")
    }


def _told(rows: Rows, id_: UUID) -> list[list[str]]:
    found = rows.execute(
        "SELECT message_ids FROM tidings.content_removals WHERE submission_id = %s ORDER BY removed_at", id_
    )
    return [row[0] for row in found]


def _labels(fake_relay: FakeRelay) -> set[str]:
    return {label for asked in fake_relay.removed for label in asked["labels"]}


def test_content_that_arrived_since_is_removed_once_here_and_at_the_relay(
    rows: Rows, look: RemovedContents, fake_relay: FakeRelay
) -> None:
    id_ = _removed(rows)
    # As from a transaction that the removal did not see.
    rows.execute(
        "INSERT INTO tidings.attempts (submission_id, number, tenant, error, ended_at, message_id)"
        " VALUES (%s, 1, 'a', 'quoted: private-answer', now(), 'm-late')", id_,
    )  # fmt: skip
    assert tables_with(rows.url, SECRET).keys() == {"tidings.attempts"}
    look.run_once()
    assert tables_with(rows.url, SECRET) == {}
    # The dispatcher gets no more removals: a row that is lost with the slot would be a removal that is lost.
    assert (_unsettled(rows), _told(rows, id_)) == (set(), [[]])
    assert fake_relay.removed == [{"labels": [str(id_), f"webhook-{id_}"], "messageIds": ["m-late"]}]
    look.run_once()
    assert len(fake_relay.removed) == 1
    assert rows.counted("tidings_contents_settled_total") == 1


def test_a_removal_waits_while_the_relay_has_a_message_or_while_it_is_young(
    rows: Rows, look: RemovedContents, fake_relay: FakeRelay
) -> None:
    answered, told, young, over = _removed(rows), _removed(rows), _removed(rows, age_seconds=60), _removed(rows)
    fake_relay.live = {str(answered), f"webhook-{told}"}
    look.run_once()
    assert _unsettled(rows) == {answered, told, young}
    assert _labels(fake_relay) == {str(over), f"webhook-{over}"}
    fake_relay.live = set()
    look.run_once()
    assert _unsettled(rows) == {young}


def test_a_removal_that_is_requested_during_the_check_is_not_settled(
    rows: Rows, look: RemovedContents, fake_relay: FakeRelay
) -> None:
    id_ = _removed(rows)
    fake_relay.before = lambda: rows.execute("SELECT tidings.remove_late_content(%s)", id_)
    look.run_once()
    assert _unsettled(rows) == {id_}


def test_removals_that_wait_do_not_hide_later_ones(rows: Rows, look: RemovedContents, fake_relay: FakeRelay) -> None:
    made = rows.execute(
        "INSERT INTO tidings.content_removals (submission_id, message_ids, removed_at)"
        " SELECT gen_random_uuid(), '{}', now() - interval '1 hour' FROM generate_series(1, %s)"
        " RETURNING submission_id",
        REMOVALS_MAX + 1,
    )  # fmt: skip
    waiting = {row[0] for row in made}
    last = _removed(rows)
    fake_relay.live = {str(id_) for id_ in waiting}
    while look.run_once():
        pass
    assert _unsettled(rows) == waiting
    assert _labels(fake_relay) == {str(last), f"webhook-{last}"}


def test_a_relay_that_is_down_settles_nothing_and_one_without_labels_delays_nothing(
    rows: Rows, look: RemovedContents, fake_relay: FakeRelay
) -> None:
    id_ = _removed(rows)
    fake_relay.reply = Reply(503)
    with pytest.raises(RelayUnavailableError):
        look.run_once()
    assert _unsettled(rows) == {id_}
    fake_relay.reply = Reply(404)
    look.run_once()
    assert _unsettled(rows) == set()


def test_a_removal_that_the_relay_did_not_execute_is_not_settled(
    rows: Rows, look: RemovedContents, fake_relay: FakeRelay
) -> None:
    id_ = _removed(rows)
    fake_relay.removal_reply = Reply(503)
    with pytest.raises(RelayUnavailableError):
        look.run_once()
    assert _unsettled(rows) == {id_}
    fake_relay.removal_reply = Reply()
    look.run_once()
    assert _unsettled(rows) == set()


def test_many_removals_are_few_requests_and_rewrite_no_row(
    rows: Rows, look: RemovedContents, fake_relay: FakeRelay
) -> None:
    ids = [_removed(rows) for _ in range(5)]
    for id_ in ids:
        rows.execute("SELECT tidings.remove_late_content(%s)", id_)
        _age(rows, id_, 300)
    before = _versions(rows)
    look.run_once()
    assert _unsettled(rows) == set()
    [asked] = fake_relay.removed
    assert sorted(asked["labels"]) == sorted([str(id_) for id_ in ids] + [f"webhook-{id_}" for id_ in ids])
    assert _versions(rows) == before


def _versions(rows: Rows) -> list[tuple[object, ...]]:
    return rows.execute(
        "SELECT s.id, s.ctid::text, r.ctid::text FROM tidings.submissions s JOIN tidings.results r ON submission_id = id"
        " ORDER BY s.id"
    )
