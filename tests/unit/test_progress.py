"""When a consumer is not ready: the age of its unfinished work."""

from __future__ import annotations

import pytest

from tests.unit.clock import Clock
from tidings.process.progress import AGE_SECONDS_MAX, Progress


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> Progress:
    made = Progress(clock)
    made.round_completed(4)
    return made


def _pass(clock: Clock, progress: Progress, seconds: float = AGE_SECONDS_MAX + 1) -> None:
    clock.seconds += seconds
    progress.round_completed(4)


def test_it_is_ready_once_it_has_partitions(clock: Clock) -> None:
    progress = Progress(clock)
    assert "not connected" in str(progress.fault())
    progress.round_completed(0)
    assert "no partitions" in str(progress.fault())
    progress.round_completed(4)
    assert progress.fault() is None


def test_a_loop_that_makes_no_round_is_not_ready(clock: Clock, progress: Progress) -> None:
    clock.seconds += AGE_SECONDS_MAX
    assert progress.fault() is None
    clock.seconds += 1
    assert "not completed a round" in str(progress.fault())


def test_a_batch_that_is_put_back_repeatedly_becomes_old(clock: Clock, progress: Progress) -> None:
    for _ in range(10):
        progress.batch_waits("the relay does not answer")
        _pass(clock, progress, AGE_SECONDS_MAX / 9)
    assert "the relay does not answer" in str(progress.fault())
    assert progress.oldest_seconds > AGE_SECONDS_MAX
    progress.batch_committed()
    assert (progress.fault(), progress.oldest_seconds) == (None, 0)


def test_unread_records_of_a_partition_that_does_not_move_are_a_fault(clock: Clock, progress: Progress) -> None:
    progress.positions({"a-0": (5, 9), "a-1": (5, 5)})
    _pass(clock, progress)
    progress.positions({"a-0": (5, 20), "a-1": (5, 5)})
    assert "do not move: a-0" in str(progress.fault())
    progress.positions({"a-0": (6, 20), "a-1": (5, 5)})
    assert progress.fault() is None


def test_records_that_arrive_after_an_idle_hour_are_young(clock: Clock, progress: Progress) -> None:
    progress.positions({"a-0": (5, 5)})
    _pass(clock, progress, 3600)
    progress.positions({"a-0": (5, 6)})
    assert progress.fault() is None


def test_a_connection_that_broke_is_reported_until_the_next_round(progress: Progress) -> None:
    progress.disconnected("Kafka: away")
    assert progress.fault() == "Kafka: away"
    progress.round_completed(4)
    assert progress.fault() is None


def test_records_that_expired_unread_remain_a_fault(clock: Clock, progress: Progress) -> None:
    progress.records_missed(3)
    _pass(clock, progress, 3600)
    assert progress.fault() == "3 changes expired before they were read"
