"""The database's clock as this process knows it: the log is stamped by one clock, however many processes there are."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime


class DatabaseClock:
    """`now` is the database's time, off by half a round trip at the most; until `set` is called, this machine's."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        # What is to be added to `monotonic` for the time in seconds since the epoch.
        self._offset = time.time() - monotonic()

    def set(self, at: datetime, asked: float) -> None:
        """The database has just answered `at` to what was asked at `asked`, by `monotonic`."""
        self._offset = at.timestamp() - (asked + self._monotonic()) / 2

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._offset + self._monotonic(), UTC)
