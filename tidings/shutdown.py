"""SIGTERM and SIGINT as a flag that loops look at, so that a process drains before it exits with 0."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Shutdown:
    """`requested()` is false until a signal came or `request()` was called; `wait()` is a sleep that a signal ends."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def install(self) -> Shutdown:
        """Take SIGTERM and SIGINT of this process; for the main thread only. Answers itself."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._event.set()

    def request(self) -> None:
        self._event.set()

    def requested(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep up to `seconds`; true when the end was requested."""
        return self._event.wait(seconds)
