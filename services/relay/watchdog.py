"""The end of the process, however it comes about; and the last resort against a process that does not end."""

from __future__ import annotations

import asyncio
import os
import threading

from structlog.stdlib import BoundLogger

EXIT_OVERDUE = 70


class Watchdog:
    """`begin` when the process is to end, as often as anybody likes: `begun` is set, and `seconds` later a thread ends
    the process with `EXIT_OVERDUE`, whatever its event loop waits for.
    """

    def __init__(self, seconds: float, log: BoundLogger) -> None:
        """Made inside a running event loop."""
        self._seconds = seconds
        self._log = log
        self._timer: threading.Timer | None = None
        self.begun = asyncio.Event()

    def begin(self) -> None:
        self.begun.set()
        if self._timer is None:
            self._timer = threading.Timer(self._seconds, self._exit)
            self._timer.daemon = True
            self._timer.start()

    def _exit(self) -> None:
        self._log.error("end_overdue", seconds=self._seconds)
        os._exit(EXIT_OVERDUE)
