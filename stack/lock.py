"""The lock of a home: one stack, and one start of it, at a time. The kernel takes it from a process that ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stack.errors import StackError

# Whoever asks for the holder has the lock for some microseconds itself.
ASKED_SECONDS = 1.0
_PAUSE_SECONDS = 0.05


@contextmanager
def held(path: Path, *, seconds: float = ASKED_SECONDS) -> Iterator[None]:
    """Hold the lock of `path`, with this process's number in it. Raises `StackError` when another has it after `seconds`.

    A POSIX lock (fcntl(2), F_SETLK), which children do not inherit: one that outlives this process does not hold it.
    """
    deadline = time.monotonic() + seconds
    with path.open("a+") as file:
        while not _taken(file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise StackError(f"another process works on {path.parent}: {holder(path) or 'it just ended'}")
            time.sleep(_PAUSE_SECONDS)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


def holder(path: Path) -> int | None:
    """The process that holds the lock of `path`; None when nobody does, whatever number the file has.

    Not for a process that holds it: the kernel takes a lock away when its process closes any descriptor of the file.
    """
    try:
        with path.open() as file:
            if _taken(file.fileno(), fcntl.LOCK_SH):
                return None
            return int(file.read())
    except (OSError, ValueError):
        return None


def _taken(descriptor: int, how: int) -> bool:
    try:
        fcntl.lockf(descriptor, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
