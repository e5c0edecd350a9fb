"""Waits for a condition with a deadline: the only place where tests sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Tests choose their deadlines for an idle machine. A machine with two processors and eight to fifteen busy processes
# takes several times as long, especially to start a process. A long deadline costs nothing when its condition is met
# early.
BUSY_TIMES = 4.0


def patient(seconds: float) -> float:
    """A deadline of `seconds`, multiplied for a busy machine."""
    return seconds * BUSY_TIMES


def until(condition: Callable[[], T], seconds: float = 20.0, *, every: float = 0.05) -> T:
    """The first truthy result of `condition`. Raises `AssertionError` with the last result after `patient(seconds)`."""
    allowed = patient(seconds)
    deadline = time.monotonic() + allowed
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"still {answer!r} after {allowed:g} s"
        time.sleep(every)
