"""The lock of a home: one stack, and one start of it, at a time. The kernel takes it from a process that ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from stack.errors import StackError

# Whoever asks for the holder has the lock for some microseconds itself.
ASKED_SECONDS = 1.0
_PAUSE_SECONDS = 0.05


@contextmanager
def held(path: Path, *, seconds: float = ASKED_SECONDS) -> Iterator[None]:
    """Hold the lock of `path`, with this process's number in it. Raises `StackError` when another has it after
    `seconds`, and when the file was deleted by whoever had it.

    A POSIX lock (fcntl(2), F_SETLK), which children do not inherit: one that outlives this process does not hold it.
    """
    deadline = time.monotonic() + seconds
    with _opened(path) as file:
        while not _taken(file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise StackError(f"another process works on {path.parent}: {holder(path) or 'it just ended'}")
            time.sleep(_PAUSE_SECONDS)
        if not _is_at(path, file.fileno()):
            # Another process would make a file anew, and have its lock.
            raise deleted(path.parent)
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
