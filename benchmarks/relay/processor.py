"""Processor seconds and memory of a process with all its children, from /proc."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import psutil


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of the processes and of all their descendants, those that ended included."""
    total = 0.0
    for pid in pids:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue  # its parent has its time by now, or will have it at the next look
            total += times.user + times.system + times.children_user + times.children_system
    return total


def unique_kib(pid: int) -> float:
    """What would be free again if the process and its children ended (USS), in KiB."""
    root = psutil.Process(pid)
    total = sum(int(process.memory_full_info().uss) for process in (root, *root.children(recursive=True)))
    return total / 1024


def peak_mib(pid: int) -> float:
    """The most resident memory that the process ever had (VmHWM of proc(5)), in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [kib] = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return kib / 1024


def load_average() -> float:
    """Of the last minute."""
    return round(os.getloadavg()[0], 1)


def postmaster(directory: Path) -> int:
    """The process id of `native_postgres(directory)`'s server."""
    return int((directory / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
