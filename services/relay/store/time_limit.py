"""The time limit of a call. What the call waits for this relay's own database does not count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A statement takes milliseconds. One that lasts longer than this, with its repetitions, waits for a database that is
# away.
SLOW_SECONDS = 1.0


@contextmanager
def paused_limit(limit: asyncio.Timeout | None) -> Iterator[None]:
    """Pause the limit during the block. A nested block with the same limit changes nothing, nor does a block without
    one.
    """
    when = None if limit is None else limit.when()
    if limit is None or when is None:
        yield
        return
    loop = asyncio.get_running_loop()
    left = when - loop.time()
    limit.reschedule(None)
    try:
        yield
    finally:
        limit.reschedule(loop.time() + left)


@contextmanager
def extended(limit: asyncio.Timeout | None, lost: Callable[[], float]) -> Iterator[None]:
    """Extend the limit by the seconds that `lost` counts during the block. A limit that is paused stays so."""
    when = None if limit is None else limit.when()
    if limit is None or when is None:
        yield
        return
    loop, before = asyncio.get_running_loop(), lost()

    timers: list[asyncio.TimerHandle] = []

    def end() -> None:
        due = when + lost() - before
        if due > loop.time():
            timers[:] = [loop.call_at(due, end)]
        else:
            limit.reschedule(due)

    limit.reschedule(None)
    timers.append(loop.call_at(when, end))
    try:
        yield
    finally:
        timers[0].cancel()
        if not limit.expired():
            limit.reschedule(when + lost() - before)


class Silence:
    """How long a database has not answered: the time with a statement that lasts longer than `slow_seconds`. Statements
    at the same time count once.
    """

    def __init__(self, *, slow_seconds: float = SLOW_SECONDS, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._slow_seconds = slow_seconds
        self._monotonic = monotonic
        # The starts of the statements in progress, the oldest first.
        self._began: dict[object, float] = {}
        self._counted = 0.0
        # The time up to which silences are counted.
        self._upto = float("-inf")

    @contextmanager
    def statement(self) -> Iterator[None]:
        """A statement with its repetitions."""
        key = object()
        self._began[key] = self._monotonic()
        try:
            yield
        finally:
            self._counted, self._upto = self._with(self._began[key])
            del self._began[key]

    @property
    def seconds(self) -> float:
        """The seconds so far."""
        return self._with(next(iter(self._began.values())))[0] if self._began else self._counted

    def _with(self, began: float) -> tuple[float, float]:
        """The count and its end, including the statements in progress that started at `began` or earlier."""
        now = self._monotonic()
        if now - began <= self._slow_seconds:
            return self._counted, self._upto
        return self._counted + now - max(next(iter(self._began.values())), self._upto), now
