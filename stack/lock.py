"""The lock of a home: one stack, and one start of it, at a time.
The kernel releases the lock when its process exits.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from stack.errors import StackError

# A process that queries the holder has the lock itself for some microseconds.
HOLDER_CHECK_SECONDS = 1.0
_PAUSE_SECONDS = 0.05


@contextmanager
def held(path: Path, *, seconds: float = HOLDER_CHECK_SECONDS) -> Iterator[None]:
    """Hold the lock of `path` and write this process's number into the file. Raises `StackError` if another process
    still has the lock after `seconds`, and if its holder deleted the file.

    The lock is a POSIX lock (fcntl(2), F_SETLK), which children do not inherit: a child that outlives this process does
    not hold it.
    """
    deadline = time.monotonic() + seconds
    with _opened(path) as file:
        while not _taken(file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise StackError(f"another process uses {path.parent}: {holder(path) or 'it just ended'}")
            time.sleep(_PAUSE_SECONDS)
        if not _is_at(path, file.fileno()):
            # Another process would create a new file, and lock that one.
            raise deleted(path.parent)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


def holder(path: Path) -> int | None:
    """Return the process that holds the lock of `path`, or None if it is free, whatever number the file contains.

    The holder itself must not call this: the kernel releases the lock when the process closes any descriptor of the
    file.
    """
    try:
        with path.open() as file:
            if _taken(file.fileno(), fcntl.LOCK_SH):
                return None
            return int(file.read())
    except (OSError, ValueError):
        return None


def deleted(home: Path) -> StackError:
    return StackError(f"{home} was deleted meanwhile, by a reset; run the command again")


def _opened(path: Path) -> TextIO:
    try:
        return path.open("a+")
    except FileNotFoundError:
        raise deleted(path.parent) from None


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _taken(descriptor: int, how: int) -> bool:
    try:
        fcntl.lockf(descriptor, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
