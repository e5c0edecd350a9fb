"""Waiting for a condition with a deadline: the only sleeping that tests do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Tests name their deadlines for a machine that does nothing else. One whose two processors are asked for by eight to
# fifteen others takes several times as long, to start a process above all. A deadline costs nothing while its condition
# comes.
BUSY_TIMES = 4.0


def patient(seconds: float) -> float:
    """A deadline of `seconds`, as a busy machine needs it."""
    return seconds * BUSY_TIMES


def until(condition: Callable[[], T], seconds: float = 20.0, *, every: float = 0.05) -> T:
    """The first truthy answer of `condition`. Raises `AssertionError` with the last answer after `patient(seconds)`."""
    allowed = patient(seconds)
    deadline = time.monotonic() + allowed
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"still {answer!r} after {allowed:g} s"
        time.sleep(every)
