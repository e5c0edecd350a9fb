"""A process is ready while its lease holds, it claims, and its endings are written."""

from __future__ import annotations

from services.relay.readiness import STALE_SECONDS, Readiness


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
