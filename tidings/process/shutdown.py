"""SIGTERM and SIGINT as a flag that loops look at, so that a process drains before it exits with 0; it ends anyhow."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

# `docker stop` kills after 10 s unless told otherwise.
END_SECONDS = 8.0
# What a process that had to be cut short exits with: EX_TEMPFAIL of sysexits.h.
EXIT_CUT_SHORT = 75


class Shutdown:
    """`requested()` is false until a signal came or `request()` was called; `wait()` is a sleep that a signal ends.

    `end_seconds` after the signal the process ends, whatever it waits for: by `_exit`, so nothing may be held that a
    SIGKILL would harm.
    """

    def __init__(self, end_seconds: float = END_SECONDS) -> None:
        self._event = threading.Event()
        self._end_seconds = end_seconds

    def install(self) -> Shutdown:
        """Take SIGTERM and SIGINT of this process; for the main thread only. Answers itself."""
        came, tell = os.pipe()
        os.set_blocking(tell, False)
        # The interpreter's own handler writes to the pipe, in C: no lock is taken that the interrupted code may hold,
        # and it happens while the main thread waits in a library that never returns.
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ignore)
        threading.Thread(target=self._watch, args=(came,), name="shutdown", daemon=True).start()
        return self

    def request(self) -> None:
        self._event.set()

    def requested(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep up to `seconds`; true when the end was requested."""
        return self._event.wait(seconds)

    def _watch(self, came: int) -> None:
        while os.read(came, 1)[0] not in (signal.SIGTERM, signal.SIGINT):
            pass  # SIGCHLD and others are written to the pipe as well, once somebody handles them
        self._event.set()
        time.sleep(self._end_seconds)
        # Not by the logger: whoever holds its lock may be what is waited for.
        os.write(2, b'{"event": "cut_short", "after_seconds": %g}\n' % self._end_seconds)
        os._exit(EXIT_CUT_SHORT)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """A handler of Python's has to be there, or the signal's default would end the process."""
