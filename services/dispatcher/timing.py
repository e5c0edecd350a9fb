"""The sources of time and randomness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """`now` returns Unix seconds, `clock` monotonic seconds, `jitter` a random number in [0, 1)."""

    now: Callable[[], float]
    clock: Callable[[], float]
    jitter: Callable[[], float]
