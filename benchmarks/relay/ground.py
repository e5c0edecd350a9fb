"""What every figure stands on: one Postgres, one upstream, a directory, and how much of each is to be done."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.relay.processor import cpu_seconds, postmaster
from benchmarks.relay.standin import StandIn, stand_in
from tests.infra.postgres import PostgresServer, native_postgres
from tests.process import ROOT

# Descriptors a process needs beside its calls: the database's, logs, listeners, the interpreter's.
SPARE_FILES = 300


@dataclass(frozen=True)
class Scale:
    """How much of each figure is done."""

    makespan_calls: int = 1_000
    makespan_seconds: float = 5.0
    drain_calls: int = 10_000
    held_calls: tuple[int, ...] = (1_000, 5_000, 20_000)
    held_seconds: float = 5.0
    publish_seconds: float = 6.0
    latency_calls: int = 300
    memory_callbacks: int = 10_000
    memory_bodies: int = 2_000


QUICK = Scale(
    makespan_calls=200,
    makespan_seconds=2.0,
    drain_calls=2_000,
    held_calls=(500, 1_000),
    held_seconds=1.0,
    publish_seconds=2.0,
    latency_calls=60,
    memory_callbacks=200,
    memory_bodies=40,
)


@dataclass(frozen=True)
class Ground:
    directory: Path
    postgres: PostgresServer
    postgres_pid: int
    upstream: StandIn
    scale: Scale
    # The checkout whose relay is measured.
    tree: Path = ROOT

    def meter(self, system: Sequence[int], sender: Sequence[int] = ()) -> Meter:
        """Of the measured processes, of those that send to them (this one, if none is named), and of Postgres."""
        return Meter({"system": system, "sender": sender, "postgres": [self.postgres_pid]})


class Meter:
    """Processor seconds since it was made."""

    def __init__(self, groups: dict[str, Sequence[int]]) -> None:
        self._groups = groups
        self._before = self._now()

    def read(self) -> dict[str, float]:
        now = self._now()
        return {f"cpu_{name}_seconds": round(now[name] - self._before[name], 2) for name in now}

    def _now(self) -> dict[str, float]:
        found = {name: cpu_seconds(pids) for name, pids in self._groups.items()}
        return found if self._groups["sender"] else found | {"sender": time.process_time()}


@contextmanager
def ground(scale: Scale) -> Iterator[Ground]:
    """Everything started, and gone at the end; as many open files as this machine lets us have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        with native_postgres(directory) as postgres, stand_in(directory) as upstream:
            yield Ground(directory, postgres, postmaster(directory), upstream, scale)


def calls_max() -> int:
    """Most connections that one process may hold here."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_FILES
