"""Results without an event are nudged. The topic is a fake, which test_event_reader compares with the real one."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest

from services.reconciler.completions import FAR_EVERY_SECONDS, Completions, EventReader, Intervals
from tests.integration.reconciler.conftest import Rows
from tests.wait import until
from tidings.contract.ids import new_event_id
from tidings.process import log
from tidings.process.telemetry import Telemetry


class FakeReader:
    """Events in the order of a list. `stuck`: the end of the log cannot be read, as behind an open transaction."""

    def __init__(self) -> None:
        self.events: list[UUID] = []
        self.begun: list[int] = []
        self._at = 0
        self.stuck = False

    def begin(self, unix_ms: int) -> None:
        self.begun.append(unix_ms)
        self._at = 0

    def read(self) -> list[UUID]:
        found = self.events[self._at :]
        self._at = len(self.events)
        return found

    def caught_up(self) -> bool:
        return self._at == len(self.events) and not self.stuck


class Look:
    def __init__(self, rows: Rows, events: EventReader) -> None:
        self.now = 0.0
        self.look = Completions(
            rows.store, events, Telemetry(rows.metrics, log.get("test")),
            clock=lambda: self.now, intervals=Intervals(settle_seconds=1, grace_seconds=60, repeat_seconds=600),
        )  # fmt: skip

    def run(self, after_seconds: float = 0.0) -> None:
        self.now += after_seconds
        while self.look.run_once():
            pass


@pytest.fixture
def events() -> FakeReader:
    return FakeReader()


@pytest.fixture
def look(rows: Rows, events: FakeReader) -> Look:
    """A database whose mark is two hours ago."""
    rows.store.set_low_water("completions", rows.store.floor(7200))
    return Look(rows, events)


def test_a_result_without_event_is_nudged_after_the_grace(rows: Rows, look: Look, events: FakeReader) -> None:
    seen, missing = rows.submit(), rows.submit()
    events.events = [rows.end(seen)]
    event_id = rows.end(missing)
    look.run()
    assert rows.nudged("result_nudges", "submission_id") == []
    look.run(61)
    assert rows.nudged("result_nudges", "submission_id") == [missing]
    assert rows.nudged("result_nudges", "event_id") == [event_id]
    look.run(61)
    assert len(rows.nudged("result_nudges", "event_id")) == 1
    look.run(600)
    assert len(rows.nudged("result_nudges", "event_id")) == 2
    events.events.append(event_id)
    look.run(1)
    look.run(601)
    assert len(rows.nudged("result_nudges", "event_id")) == 2
    assert rows.counted("tidings_emitted_again_total") == 2


def test_an_event_may_be_read_before_its_row(rows: Rows, look: Look, events: FakeReader) -> None:
    event_id = new_event_id()
    events.events = [event_id]
    look.run()
    id_ = rows.submit()
    rows.execute(
        "INSERT INTO tidings.results (submission_id, event_id, tenant, target, outcome, submitted_at)"
        " VALUES (%s, %s, 'a', 't', 'succeeded', now())", id_, event_id,
    )  # fmt: skip
    until(lambda: rows.store.ended(UUID(int=event_id.int - 1), 1, 1), 10)
    look.run()
    look.run(61)
    assert rows.nudged("result_nudges", "submission_id") == []


def test_a_result_that_became_visible_late_is_compared_within_an_hour(
    rows: Rows, look: Look, events: FakeReader
) -> None:
    """As behind a standby that was down: the check has passed it, and has passed the event of another such row."""
    events.events = [rows.end(rows.submit(), age_seconds=1000)]
    look.run()
    missing, seen = rows.submit(), rows.submit()
    rows.end(missing, age_seconds=5000)
    events.events.append(rows.end(seen, age_seconds=2000))
    look.run(61)
    look.run(61)
    assert rows.nudged("result_nudges", "submission_id") == []
    look.run(FAR_EVERY_SECONDS)
    look.run(61)
    assert rows.nudged("result_nudges", "submission_id") == [missing]
    begun = len(events.begun)
    look.run(FAR_EVERY_SECONDS)
    assert len(events.begun) == begun, "all that is there was read"


def test_while_the_topic_cannot_be_read_to_its_end_no_result_is_judged(
    rows: Rows, look: Look, events: FakeReader
) -> None:
    missing = rows.submit()
    rows.end(missing)
    events.stuck = True
    look.run()
    look.run(3600)
    assert rows.nudged("result_nudges", "submission_id") == []
    events.stuck = False
    look.run()
    assert rows.nudged("result_nudges", "submission_id") == [missing]


def test_a_new_process_continues_before_the_first_missing_event(rows: Rows, look: Look, events: FakeReader) -> None:
    first, second = rows.submit(), rows.submit()
    rows.end(first, age_seconds=3000)
    events.events = [rows.end(second, age_seconds=2000)]
    look.run()
    again = Look(rows, events)
    again.run()
    again.run(61)
    assert rows.nudged("result_nudges", "submission_id") == [first]


def test_the_first_process_nudges_no_old_result(rows: Rows, events: FakeReader) -> None:
    rows.end(rows.submit())
    look = Look(rows, events)
    look.run()
    look.run(61)
    assert rows.nudged("result_nudges", "submission_id") == []


def test_after_an_error_of_the_topic_it_is_read_from_its_start_and_nothing_is_forgotten(
    rows: Rows, look: Look, events: FakeReader
) -> None:
    missing = rows.submit()
    rows.end(missing)
    look.run()
    _fail_once(look, events)
    look.run()
    look.run(61)
    assert rows.nudged("result_nudges", "submission_id") == [missing]
    assert len(events.begun) == 2


def test_an_error_does_not_prevent_the_detection_of_late_results(rows: Rows, look: Look, events: FakeReader) -> None:
    events.events = [rows.end(rows.submit(), age_seconds=1000)]
    look.run()
    late = rows.submit()
    rows.end(late, age_seconds=5000)
    _fail_once(look, events)
    look.run()
    look.run(FAR_EVERY_SECONDS)
    look.run(61)
    assert rows.nudged("result_nudges", "submission_id") == [late]


def test_an_error_of_the_database_does_not_cause_events_to_be_read_again(
    rows: Rows, look: Look, events: FakeReader
) -> None:
    look.run()
    rows.store.close()
    rows.execute("REVOKE SELECT ON tidings.results FROM tidings_reconciler")
    with pytest.raises(psycopg.Error):
        look.look.run_once()
    rows.execute("GRANT SELECT ON tidings.results TO tidings_reconciler")
    look.run()
    assert len(events.begun) == 1


def _fail_once(look: Look, events: FakeReader) -> None:
    read: Callable[[], list[UUID]] = events.read

    def broken() -> list[UUID]:
        events.read = read  # type: ignore[method-assign]
        raise OSError

    events.read = broken  # type: ignore[method-assign]
    with pytest.raises(OSError):
        look.look.run_once()
