"""Whose channels are left out, and for how long."""

from __future__ import annotations

from services.notifier.tenants import FORGOTTEN_SECONDS, LEFT_OUT_SECONDS, LEFT_OUT_SECONDS_MAX, TENANTS_MAX, Tenants
from tests.unit.clock import Clock


def test_the_first_time_is_free_and_the_next_ones_cost_ever_more() -> None:
    clock = Clock()
    tenants = Tenants(clock)
    assert tenants.blame(["a"]) == {}
    assert not tenants.left_out("a")
    seconds = []
    for _ in range(8):
        [cost] = tenants.blame(["a"]).values()
        assert tenants.left_out("a")
        assert not tenants.left_out("b")
        clock.seconds += cost
        assert not tenants.left_out("a")
        seconds.append(cost)
    assert seconds[:3] == [LEFT_OUT_SECONDS, 2 * LEFT_OUT_SECONDS, 4 * LEFT_OUT_SECONDS]
    assert seconds[-1] == LEFT_OUT_SECONDS_MAX


def test_after_a_while_all_is_forgotten() -> None:
    clock = Clock()
    tenants = Tenants(clock)
    tenants.blame(["a"])
    clock.seconds += FORGOTTEN_SECONDS + 1
    assert tenants.blame(["a"]) == {}


def test_no_more_tenants_are_remembered_than_the_limit() -> None:
    tenants = Tenants(Clock())
    for number in range(TENANTS_MAX + 1):
        tenants.blame([str(number)])
    assert tenants.blame(["1", str(TENANTS_MAX)]) == {"1": LEFT_OUT_SECONDS, str(TENANTS_MAX): LEFT_OUT_SECONDS}
    assert tenants.blame(["0"]) == {}
