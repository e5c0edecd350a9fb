"""The processor seconds and the memory of a process with all its children, from /proc."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import psutil


def cpu_seconds(pids: Sequence[int]) -> float:
    """The user and system time of the processes and all their descendants, including those that have ended."""
    total = 0.0
    for pid in pids:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue  # it has ended: its time is added to its parent's, at the latest by the next reading
            total += times.user + times.system + times.children_user + times.children_system
    return total


def unique_kib(pid: int) -> float:
    """The unique set size (USS) of the process and its children, in KiB: the memory that their end would free."""
    root = psutil.Process(pid)
    total = sum(int(process.memory_full_info().uss) for process in (root, *root.children(recursive=True)))
    return total / 1024


def peak_mib(pid: int) -> float:
    """The most resident memory that the process ever had (VmHWM of proc(5)), in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [kib] = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return kib / 1024


def load_average() -> float:
    """The load average of the last minute."""
    return round(os.getloadavg()[0], 1)


def postmaster(directory: Path) -> int:
    """The process id of `native_postgres(directory)`'s server."""
    return int((directory / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
