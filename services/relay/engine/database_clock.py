"""The database's clock as known to this process. All processes stamp the log by this one clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime


class DatabaseClock:
    """`now` is the database's time, with an error of at most half a round trip. Until `set` is called, it is this
    machine's time.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        # The difference between `monotonic` and the Unix time in seconds.
        self._offset = time.time() - monotonic()

    def set(self, at: datetime, sent_at: float) -> None:
        """Adjust to the database's time `at`, just received in answer to a statement sent at
        `sent_at`, by `monotonic`.
        """
        self._offset = at.timestamp() - (sent_at + self._monotonic()) / 2

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._offset + self._monotonic(), UTC)
