"""Starts a relay as a fork of a process that has imported its modules: the import takes most of a start's time.

Each fork imports this module by name, so it must not import modules of the tests.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path

from services.relay.__main__ import start

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])


class RelayFork:
    """The part of `subprocess.Popen` that `tests.process.Process` uses."""

    # `Process.start` polls all processes. A status can be read once: of two threads that poll a process at the same
    # time, one would get 255.
    _polling = threading.Lock()

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._process = _FORKS.Process(target=_run, args=(dict(environment), log), daemon=True)
        with self._polling:
            self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        with self._polling:
            return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        wait([self._process.sentinel], timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired("services.relay", timeout)
        return status


def _run(environment: Mapping[str, str], log: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    start()
