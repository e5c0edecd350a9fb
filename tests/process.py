"""A process of ours under the control of a test: started with an environment, ended by any signal, with its output
kept.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import requests

from tests.wait import patient, until

ROOT = Path(__file__).resolve().parent.parent


class Running(Protocol):
    """The methods that `Process` uses, as in `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def send_signal(self, number: int, /) -> None: ...

    def wait(self, timeout: float) -> int: ...


class Process:
    """`python -m module`, which can be restarted with the same environment. `wrapper` is a command that executes the
    command after it. `tree` is the checkout whose module runs.
    """

    def __init__(
        self,
        module: str,
        environment: Mapping[str, str],
        log: Path,
        *,
        ready_url: str | None = None,
        wrapper: Sequence[str] = (),
        tree: Path = ROOT,
    ) -> None:
        self.module = module
        self.wrapper = wrapper
        self.tree = tree
        self.environment = dict(environment)
        self.log = log
        self.ready_url = ready_url
        self._process: Running | None = None

    def start(self, seconds: float = 30.0) -> Process:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        own = {"PYTHONPATH": str(self.tree), "TIDINGS_LOG_FORMAT": "json"}
        self._process = self._started(kept | own | self.environment)
        if self.ready_url is not None:
            until(self._ready, seconds)
        return self

    def _started(self, environment: Mapping[str, str]) -> Running:
        command = [*self.wrapper, sys.executable, "-m", self.module]
        with self.log.open("ab") as output:
            return subprocess.Popen(command, cwd=self.tree, env=environment, stdout=output, stderr=output)

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end. Return the exit status, which is negative for a signal."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(patient(60))

    def stop(self) -> int:
        return self.kill(signal.SIGTERM)

    def wait(self, seconds: float = 30.0) -> int:
        assert self._process is not None
        return self._process.wait(patient(seconds))

    @property
    def pid(self) -> int:
        """The id of the running process, or of the last one."""
        assert self._process is not None
        return self._process.pid

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _ready(self) -> bool:
        assert self.running(), f"{self.module} ended:\n{self.log.read_text()[-3000:]}"
        try:
            return requests.get(str(self.ready_url), timeout=2).status_code == 200
        except requests.RequestException:
            return False


@contextmanager
def started(process: Process) -> Iterator[Process]:
    """Start the process, and kill it at the end of the block if it still runs."""
    try:
        yield process.start()
    finally:
        if process.running():
            process.kill()
