"""Ends the process: the signal that all parts wait for, and a forced exit when the process does not end in time."""

from __future__ import annotations

import asyncio
import os
import threading

from structlog.stdlib import BoundLogger

EXIT_OVERDUE = 70


class Watchdog:
    """`begin` starts the end of the process and may be called repeatedly: it sets `begun`, and `seconds` later a thread
    exits the process with `EXIT_OVERDUE`, whatever the event loop is blocked on.
    """

    def __init__(self, seconds: float, log: BoundLogger) -> None:
        """Must be called inside a running event loop."""
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
