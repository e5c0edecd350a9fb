"""The table of several runs."""

from __future__ import annotations

from dataclasses import asdict

from tests.chaos.plan import Fault
from tests.chaos.recovery import Recovery
from tests.chaos.table import HEAD, recoveries_of, table

FOUND = (
    Recovery(Fault(0, "kill", "relay", 1.0, 0.0), 1.0, 2.0),
    Recovery(Fault(1, "nothing", "at all", 2.0, 0.0), 0.0, 0.5),
    Recovery(Fault(0, "kill", "relay", 1.0, 0.0), None, 4.0),
    Recovery(Fault(1, "stop", "api", 1.0, 2.0), None, None),
)


def test_a_row_has_all_recoveries_of_its_kind_and_the_control_is_last() -> None:
    assert table(FOUND).splitlines() == [
        *HEAD.splitlines(),
        "| kill relay | 2 | 3.0 | 4.0 | 1.0 | 1.0 |",
        "| stop api | 1 | - | - | - | - |",
        "| nothing at all | 1 | 0.5 | 0.5 | 0.0 | 0.0 |",
    ]


def test_a_report_can_be_read_again() -> None:
    assert tuple(recoveries_of({"faults": [asdict(one) for one in FOUND]})) == FOUND
