"""Open submissions without a relay message are found and nudged. Others are left unchanged."""

from __future__ import annotations

import uuid

import pytest

from services.reconciler import open_submissions
from services.reconciler.open_submissions import Limits, OpenSubmissions
from services.reconciler.relay_client import RelayClient, RelayUnavailableError
from services.reconciler.store import NO_ID
from services.reconciler.stray_messages import StrayMessages
from tests.destination import Reply
from tests.integration.reconciler.conftest import FakeRelay, Rows
from tidings.process import log
from tidings.process.telemetry import Telemetry


class Look:
    def __init__(self, rows: Rows, relay: RelayClient, *, open_max: int = open_submissions.OPEN_MAX) -> None:
        self.now = 0.0
        self.look = OpenSubmissions(
            rows.store, relay, Telemetry(rows.metrics, log.get("test")),
            clock=lambda: self.now, limits=Limits(grace_seconds=120, repeat_seconds=600, open_max=open_max),
        )  # fmt: skip

    def full_pass(self) -> int:
        """Run a pass; return the number of submissions that it checked."""
        looked = 0
        while done := self.look.run_once():
            looked += done
        return looked


@pytest.fixture
def look(rows: Rows, relay: RelayClient) -> Look:
    return Look(rows, relay)


def test_a_submission_without_a_relay_message_is_nudged_and_not_by_every_pass(
    rows: Rows, look: Look, fake_relay: FakeRelay
) -> None:
    lost, held, ended = rows.submit(), rows.submit(), rows.submit()
    rows.submit(age_seconds=10)
    rows.end(ended)
    fake_relay.live = {str(held)}
    look.full_pass()
    look.full_pass()
    assert rows.nudged("submission_nudges", "id") == [lost]
    assert rows.counted("tidings_dispatched_again_total") == 1
    assert rows.counted("tidings_open_submissions") == 2
    look.now = 601.0
    look.full_pass()
    assert rows.nudged("submission_nudges", "id") == [lost, lost]


def test_a_callback_that_is_a_dead_letter_is_retried_in_place_of_the_call(
    rows: Rows, look: Look, fake_relay: FakeRelay
) -> None:
    id_ = rows.submit()
    fake_relay.letters = {str(id_): ["1-a", "2-b"]}
    look.full_pass()
    look.full_pass()
    assert fake_relay.retried == ["1-a", "2-b"]
    assert rows.nudged("submission_nudges", "id") == []
    assert rows.counted("tidings_callbacks_driven_total") == 2


def test_a_submission_that_ended_during_the_request_to_the_relay_is_left_unchanged(
    rows: Rows, look: Look, fake_relay: FakeRelay
) -> None:
    id_ = rows.submit()
    fake_relay.before = lambda: rows.end(id_)
    look.full_pass()
    assert rows.nudged("submission_nudges", "id") == []


def test_a_pass_continues_at_its_position_and_the_mark_stays_before_the_first_open_submission(
    rows: Rows, relay: RelayClient, look: Look, fake_relay: FakeRelay
) -> None:
    ids = [rows.submit(age_seconds=7200 - n) for n in range(open_submissions.SWEEP_MAX // 500)]
    for id_ in ids[:4]:
        rows.end(id_)
    fake_relay.live = {str(id_) for id_ in ids}
    look.full_pass()
    mark = rows.store.low_water(open_submissions.NAME)
    assert ids[3] <= mark < ids[4]
    # A new process begins there.
    assert [id_ for id_, _ in rows.store.sweep(mark, 120, 100)] == ids[4:]
    for id_ in ids[4:]:
        rows.end(id_)
    Look(rows, relay).full_pass()
    assert rows.store.low_water(open_submissions.NAME) >= ids[-1]


def test_later_submissions_are_read_once_while_one_is_open_for_long(
    rows: Rows, relay: RelayClient, look: Look, fake_relay: FakeRelay
) -> None:
    first = rows.submit(age_seconds=7200)
    rows.ended_submissions(open_submissions.SWEEP_MAX + 100, age_seconds=3600)
    last = rows.submit(age_seconds=300)
    fake_relay.live = {str(first), str(last)}
    assert look.full_pass() > open_submissions.SWEEP_MAX
    assert look.full_pass() == 2
    assert rows.counted("tidings_open_submissions") == 2
    # Both are checked in each pass, and the mark stays before the first, for a process that restarts.
    fake_relay.live = {str(first)}
    look.full_pass()
    assert rows.nudged("submission_nudges", "id") == [last]
    assert rows.store.low_water(open_submissions.NAME) < first
    rows.end(first)
    look.full_pass()
    assert rows.store.low_water(open_submissions.NAME) > first


def test_open_submissions_beyond_the_memory_limit_are_checked_in_each_pass(
    rows: Rows, relay: RelayClient, fake_relay: FakeRelay
) -> None:
    look = Look(rows, relay, open_max=2)
    ids = [rows.submit(age_seconds=7200 - n) for n in range(5)]
    fake_relay.live = {str(id_) for id_ in ids}
    look.full_pass()
    assert rows.counted("tidings_open_submissions") == 5
    fake_relay.live = {str(id_) for id_ in ids[:4]}
    look.full_pass()
    assert rows.nudged("submission_nudges", "id") == [ids[4]]
    for id_ in ids[:2]:
        rows.end(id_)
    look.full_pass()
    assert rows.counted("tidings_open_submissions") == 3
    assert ids[1] <= rows.store.low_water(open_submissions.NAME) < ids[2]


def test_a_submission_that_became_visible_late_is_found_by_the_far_check(
    rows: Rows, look: Look, fake_relay: FakeRelay
) -> None:
    """As behind a standby that was down: passes begin after it."""
    rows.end(rows.submit(age_seconds=3600))
    look.full_pass()
    late, later = rows.submit(age_seconds=7200), rows.submit(age_seconds=7100)
    fake_relay.live = {str(later)}
    look.full_pass()
    assert rows.nudged("submission_nudges", "id") == []
    look.now += open_submissions.FAR_EVERY_SECONDS + 1
    look.full_pass()
    assert rows.nudged("submission_nudges", "id") == [late]
    # From then on each pass begins before it, until it has ended.
    assert rows.store.low_water(open_submissions.NAME) < late
    for id_ in (late, later):
        rows.end(id_)
    look.full_pass()
    assert rows.store.low_water(open_submissions.NAME) > later


def test_a_far_check_continues_beyond_its_batch_size(rows: Rows, look: Look) -> None:
    rows.end(rows.submit(age_seconds=60 * 60))
    look.full_pass()
    rows.ended_submissions(open_submissions.FAR_MAX + 10, age_seconds=3 * 60 * 60)
    late = rows.submit(age_seconds=2 * 60 * 60)
    look.now += open_submissions.FAR_EVERY_SECONDS + 1
    look.full_pass()
    assert rows.nudged("submission_nudges", "id") == [late]


def test_a_relay_that_is_down_causes_no_nudge(rows: Rows, look: Look, fake_relay: FakeRelay) -> None:
    rows.submit()
    for reply in (Reply(500), Reply(503), Reply(200, b"<html>"), Reply(0)):
        fake_relay.reply = reply
        with pytest.raises(RelayUnavailableError):
            look.look.run_once()
    assert rows.nudged("submission_nudges", "id") == []
    assert rows.store.low_water(open_submissions.NAME) == NO_ID


def test_a_relay_without_labels_switches_the_check_off(rows: Rows, look: Look, fake_relay: FakeRelay) -> None:
    rows.submit()
    fake_relay.reply = Reply(404)
    look.full_pass()
    assert rows.nudged("submission_nudges", "id") == []


def test_live_messages_of_submissions_that_do_not_exist_are_counted(
    rows: Rows, relay: RelayClient, fake_relay: FakeRelay
) -> None:
    known, stray = rows.submit(), uuid.uuid4()
    fake_relay.live = {str(known), str(stray), "webhook", "a label of somebody else"}
    assert StrayMessages(rows.store, relay, Telemetry(rows.metrics, log.get("test"))).run_once() == 0
    assert rows.counted("tidings_messages_without_submission") == 1
