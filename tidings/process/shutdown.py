"""SIGTERM and SIGINT as a flag that loops check, so that a process drains and exits with 0; at a time limit it exits
too.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

# `docker stop` kills a process after 10 s by default.
END_SECONDS = 8.0
# The exit status of a process that did not drain in time: EX_TEMPFAIL of sysexits.h.
EXIT_CUT_SHORT = 75


class Shutdown:
    """`requested()` is false until a signal arrives or `request()` is called; `wait()` is a sleep that a signal ends.

    `end_seconds` after the signal the process exits in any case, by `_exit`, so it must not hold a resource that a
    SIGKILL would damage.
    """

    def __init__(self, end_seconds: float = END_SECONDS) -> None:
        self._event = threading.Event()
        self._end_seconds = end_seconds

    def install(self) -> Shutdown:
        """Handle SIGTERM and SIGINT of this process; for the main thread only. Returns itself."""
        wake_reader, wake_writer = os.pipe()
        os.set_blocking(wake_writer, False)
        # The interpreter's own handler writes to the pipe, in C. It takes no lock that the interrupted code may hold,
        # and it works while the main thread waits in a library that never returns.
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ignore)
        threading.Thread(target=self._watch, args=(wake_reader,), name="shutdown", daemon=True).start()
        return self

    def request(self) -> None:
        self._event.set()

    def requested(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep up to `seconds`; return true if shutdown was requested."""
        return self._event.wait(seconds)

    def _watch(self, wake_reader: int) -> None:
        while os.read(wake_reader, 1)[0] not in (signal.SIGTERM, signal.SIGINT):
            pass  # SIGCHLD and other signals are written to the pipe as well, if a handler exists
        self._event.set()
        time.sleep(self._end_seconds)
        # Not with the logger: the blocked thread may hold its lock.
        os.write(2, b'{"event": "cut_short", "after_seconds": %g}\n' % self._end_seconds)
        os._exit(EXIT_CUT_SHORT)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """A Python handler must exist, or the default action of the signal would end the process."""
