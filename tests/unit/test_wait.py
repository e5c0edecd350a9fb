"""The deadlines of tests allow for a busy machine, and end."""

from __future__ import annotations

import time

import pytest

from tests.wait import until


def test_a_condition_that_a_busy_machine_fulfils_late_counts() -> None:
    begun = time.monotonic()
    assert until(lambda: time.monotonic() - begun > 0.2, 0.1)


def test_a_condition_that_is_never_fulfilled_is_named_with_its_last_answer() -> None:
    with pytest.raises(AssertionError, match="still 0 after"):
        until(lambda: 0, 0.02)
