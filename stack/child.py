"""A program that this process runs and answers for: it ends when we end it, and also when we are killed."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.errors import StackError

# <sys/prctl.h>
_PR_SET_PDEATHSIG = 1

# A log that is larger than this when its program starts is put aside, in the place of the one put aside before.
LOG_BYTES_MAX = 10 * 1024 * 1024

_PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Program:
    """What to run, in `directory`. `environment` is all that it gets. `user`: whose rights it has, ours by default."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    user: str | None = None
    directory: Path = Path("/")
    stop_signal: signal.Signals = signal.SIGTERM
    # What the kernel sends it should we die; one that ends without needing the others.
    orphan_signal: signal.Signals = signal.SIGKILL


class Child:
    """One run of a `Program`. Start it from the main thread: the kernel counts the end of the thread that started it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        rotate(program.log)
        with program.log.open("ab") as log:
            self._process = subprocess.Popen(
                program.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(program.environment),
                cwd=program.directory,
                user=program.user,
                group=pwd.getpwnam(program.user).pw_gid if program.user else None,
                extra_groups=[] if program.user else None,
                start_new_session=True,  # Ctrl-C at a terminal is for us alone; we stop the children in order
                preexec_fn=end_with_parent(program.orphan_signal),  # noqa: PLW1509  started from the main thread
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Wait until `ready()`. Raises `StackError` with the log's last lines when it ends first or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.ended():
                raise StackError(f"{self.program.name} ended while starting: {self._last_words()}")
            if time.monotonic() > deadline:
                raise StackError(f"{self.program.name} was not ready after {seconds:g} s: {self._last_words()}")
            time.sleep(_PAUSE_SECONDS)

    def stop(self, *, seconds: float = 20) -> bool:
        """Ask it to end, wait, and kill it after `seconds`; true when it ended by itself."""
        if self.ended():
            return True
        self._process.send_signal(self.program.stop_signal)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _last_words(self) -> str:
        return f"see {self.program.log}\n" + "\n".join(last_lines(self.program.log, 8))


def end_with_parent(number: signal.Signals) -> Callable[[], None]:
    """A function for `preexec_fn`: the kernel sends `number` to the new process when the one that started it dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask_the_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return ask_the_kernel


def rotate(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(log.name + ".1"))


def last_lines(log: Path, count: int) -> list[str]:
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16 * 1024))
        return file.read().decode(errors="replace").splitlines()[-count:]
