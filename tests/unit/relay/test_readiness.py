"""A process is ready while its lease is valid, it claims, and its endings are written."""

from __future__ import annotations

from services.relay.engine.readiness import STALE_SECONDS, Readiness


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_is_ready_only_while_work_is_done() -> None:
    clock = Clock()
    renewed = [float("-inf")]
    unwritten: list[float | None] = [None]
    readiness = Readiness(15.0, lambda: renewed[0], lambda: unwritten[0], clock)
    assert set(readiness.faults()) == {"lease", "claims"}
    renewed[0] = 100.0
    readiness.claimed()
    assert readiness.faults() == {}
    clock.now += STALE_SECONDS + 1
    assert set(readiness.faults()) == {"claims"}
    readiness.claimed()
    unwritten[0] = 100.0
    assert set(readiness.faults()) == {"endings"}
    unwritten[0] = None
    clock.now += 15.0
    readiness.claimed()
    assert set(readiness.faults()) == {"lease"}


def test_a_relay_that_claims_nothing_while_its_answers_wait_is_ready_only_while_some_of_them_are_settled() -> None:
    clock = Clock()
    readiness = Readiness(1e6, lambda: clock.now, lambda: None, clock)
    settled = 5
    readiness.claimed(blocked=True, settled=settled)
    for _ in range(4):
        clock.now += STALE_SECONDS - 1
        settled += 1
        readiness.claimed(blocked=True, settled=settled)
        assert readiness.faults() == {}
    clock.now += STALE_SECONDS + 1
    readiness.claimed(blocked=True, settled=settled)
    assert set(readiness.faults()) == {"claims"}
    readiness.claimed(settled=settled)
    assert readiness.faults() == {}


def test_a_relay_whose_places_are_all_used_by_calls_is_ready_however_long_they_take() -> None:
    clock = Clock()
    readiness = Readiness(1e6, lambda: clock.now, lambda: None, clock)
    for _ in range(100):
        clock.now += STALE_SECONDS - 1
        readiness.claimed(blocked=False, settled=0)
    assert readiness.faults() == {}
