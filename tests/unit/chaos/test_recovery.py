"""The duration of a recovery, from samples and completions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.evidence import Completion, Evidence, Sample, Sent
from tests.chaos.plan import Fault
from tests.chaos.recovery import recoveries, summaries

KILL = Fault(0, "kill", "relay", 10.0, 0.0)
STOP = Fault(1, "stop", "relay", 20.0, 2.0)


def evidence(*faults: Fault, samples: dict[float, bool], told: float = 14.0) -> Evidence:
    return Evidence(
        began=100.0,
        faults=faults,
        samples=tuple(Sample("relay", 100.0 + at, ready, 0) for at, ready in samples.items()),
        sent=(Sent("other", "t", 105.0, ("O",)), *(Sent(f"p{n}", "t", 110.0, (f"P{n}",), probe=n) for n in range(3))),
        completions=(
            Completion("tidings.completions", "O", "o", "succeeded", 111.0),
            *(Completion("tidings.completions", f"P{n}", f"p{n}", "succeeded", 100.0 + told) for n in range(3)),
        ),
    )


def test_a_killed_process_has_recovered_when_it_is_ready_for_the_first_time() -> None:
    [found] = recoveries(evidence(KILL, samples={9.0: True, 11.0: False, 12.0: False, 13.0: True, 14.0: True}))
    assert found.ready_seconds == pytest.approx(3.0)


def test_the_system_has_recovered_with_the_completion_of_the_probe_of_the_fault() -> None:
    [found] = recoveries(evidence(KILL, samples={}))
    assert found.work_seconds == pytest.approx(4.0)


def test_a_fault_whose_probe_is_not_completed_has_no_time() -> None:
    [found] = recoveries(evidence(replace(KILL, number=7), samples={}))
    assert found.work_seconds is None


def test_the_time_counts_from_the_end_of_the_fault() -> None:
    [found] = recoveries(evidence(STOP, samples={21.0: False, 23.5: True}, told=24.0))
    assert found.ready_seconds == pytest.approx(1.5)
    assert found.work_seconds == pytest.approx(2.0)


def test_a_process_that_has_not_recovered_before_its_next_fault_has_no_time() -> None:
    first, _ = recoveries(evidence(KILL, STOP, samples={11.0: False, 19.0: False, 21.0: False, 23.0: True}))
    assert first.ready_seconds is None


def test_a_summary_has_the_median_and_the_maximum_of_a_kind() -> None:
    again = Fault(2, "kill", "relay", 30.0, 0.0)
    samples = {11.0: False, 12.0: True, 31.0: False, 36.0: True}
    [found] = summaries(recoveries(evidence(KILL, again, samples=samples)))
    assert (found.kind, found.times) == ("kill relay", 2)
    assert found.ready_median == pytest.approx(4.0)
    assert found.ready_worst == pytest.approx(6.0)
