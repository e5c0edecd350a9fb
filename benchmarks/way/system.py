"""The whole system, native, in a home of its own; its processes by name, and what they use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from benchmarks.relay.processor import cpu_seconds, unique_kib
from stack.home import PORTS, Home, open_home
from stack.ports import free_ports
from tests.process import ROOT

UP_SECONDS_MAX = 180
TARGET = "bench"
TARGETS = """\
[bench]
url = "http://127.0.0.1:{port}/call?id=bench&delay={delay}"
timeout_seconds = 60
"""
# How each process is known by its command line; the servers' children belong to them.
PROCESSES = {
    "api": "services.api",
    "dispatcher": "services.dispatcher",
    "relay": "services.relay",
    "notifier": "services.notifier",
    "watcher": "services.watcher",
    "reconciler": "services.reconciler",
    "kafka": "kafka.Kafka",
    "connect": "org.apache.kafka.connect.cli.ConnectDistributed",
}


@dataclass(frozen=True)
class System:
    """A running stack of ours."""

    home: Home
    pids: dict[str, int]

    @property
    def database_url(self) -> str:
        return self.home.public_environment()["TIDINGS_DATABASE_URL"]

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.home.ports['kafka']}"

    def usage(self) -> dict[str, float]:
        """Processor seconds so far, by process; Postgres too."""
        return {name: cpu_seconds([pid]) for name, pid in self.pids.items()}

    def memory_mib(self) -> dict[str, float]:
        return {name: round(unique_kib(pid) / 1024, 1) for name, pid in self.pids.items()}

    def written_bytes(self) -> dict[str, int]:
        """The WAL's and Kafka's, so far."""
        logs = (self.home.directory / "kafka").rglob("*.log")
        return {"wal": wal_bytes(self.database_url), "kafka": sum(path.stat().st_size for path in logs)}


def wal_bytes(url: str) -> int:
    """The bytes of WAL that the server has written so far."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def running(directory: Path, upstream_port: int, delay_seconds: float, tree: Path = ROOT) -> Iterator[System]:
    """Start the stack of `tree`; its only target answers after `delay_seconds`. It is stopped at the end."""
    targets = directory / "targets.toml"
    targets.write_text(TARGETS.format(port=upstream_port, delay=delay_seconds))
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "JAVA_HOME") if name in os.environ}
    ports = {
        f"TIDINGS_PORT_{name.upper()}": str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)
    }
    environment = kept | ports | {
        "TIDINGS_HOME": str(directory / "home"),
        "TIDINGS_TARGETS_FILE": str(targets),
        "RELAY_ALLOW_HOSTS": f"127.0.0.1:{upstream_port}",
        "TIDINGS_LOG_LEVEL": "WARNING",
    }  # fmt: skip
    home = open_home(environment)
    try:
        _stack(tree, environment, "up")
        yield System(home, _pids(home))
    finally:
        _stack(tree, environment, "down")


def _stack(tree: Path, environment: dict[str, str], word: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stack", word],
        cwd=tree, env=environment, capture_output=True, text=True, timeout=UP_SECONDS_MAX, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"the stack: {word}: {done.stdout[-500:]}{done.stderr[-500:]}")


def _pids(home: Home) -> dict[str, int]:
    supervisor = psutil.Process(int(home.pid_file.read_text()))
    found: dict[str, int] = {}
    for process in sorted(supervisor.children(recursive=True), key=lambda one: one.create_time()):
        words = process.cmdline()
        for name, word in PROCESSES.items():
            if word in words:
                found.setdefault(name, process.pid)
    postmaster = home.postgres / "postmaster.pid"
    if not postmaster.exists():
        postmaster = home.postgres / "data" / "postmaster.pid"
    found["postgres"] = int(postmaster.read_text().splitlines()[0])
    return found
