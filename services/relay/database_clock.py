"""The database's clock as this process knows it: the log is stamped by one clock, however many processes there are."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class DatabaseClock:
    """`now` is the database's time, off by half a round trip at the most; until `set` is called, this machine's."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._at = datetime.now(UTC)
        self._since = monotonic()

    def set(self, at: datetime, asked: float) -> None:
        """The database has just answered `at` to what was asked at `asked`, by `monotonic`."""
        self._at = at
        self._since = (asked + self._monotonic()) / 2

    def now(self) -> datetime:
        return self._at + timedelta(seconds=self._monotonic() - self._since)
