"""Which tenants' channels are left out, and for how long."""

from __future__ import annotations

from services.notifier.tenants import EXCLUDED_SECONDS, EXCLUDED_SECONDS_MAX, FORGOTTEN_SECONDS, TENANTS_MAX, Tenants
from tests.unit.clock import Clock


def test_the_first_failure_is_free_and_later_ones_have_growing_times() -> None:
    clock = Clock()
    tenants = Tenants(clock)
    assert tenants.count_failure(["a"]) == {}
    assert not tenants.excluded("a")
    seconds = []
    for _ in range(8):
        [cost] = tenants.count_failure(["a"]).values()
        assert tenants.excluded("a")
        assert not tenants.excluded("b")
        clock.seconds += cost
        assert not tenants.excluded("a")
        seconds.append(cost)
    assert seconds[:3] == [EXCLUDED_SECONDS, 2 * EXCLUDED_SECONDS, 4 * EXCLUDED_SECONDS]
    assert seconds[-1] == EXCLUDED_SECONDS_MAX


def test_failures_are_forgotten_after_some_time() -> None:
    clock = Clock()
    tenants = Tenants(clock)
    tenants.count_failure(["a"])
    clock.seconds += FORGOTTEN_SECONDS + 1
    assert tenants.count_failure(["a"]) == {}


def test_no_more_tenants_are_remembered_than_the_limit() -> None:
    tenants = Tenants(Clock())
    for number in range(TENANTS_MAX + 1):
        tenants.count_failure([str(number)])
    assert tenants.count_failure(["1", str(TENANTS_MAX)]) == {"1": EXCLUDED_SECONDS, str(TENANTS_MAX): EXCLUDED_SECONDS}
    assert tenants.count_failure(["0"]) == {}
