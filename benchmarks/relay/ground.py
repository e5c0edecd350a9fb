"""The environment of every figure: one Postgres, one upstream, a directory, and the sizes of the runs."""

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

# The file descriptors that a process needs besides its calls: of the database, logs, listeners and the interpreter.
SPARE_FILES = 300


@dataclass(frozen=True)
class Scale:
    """The sizes of the runs of each figure."""

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
        """A meter of the measured processes, of their senders (default: this process) and of Postgres."""
        return Meter({"system": system, "sender": sender, "postgres": [self.postgres_pid]})


class Meter:
    """The processor seconds of groups of processes since the meter was created."""

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
    """Start the environment, and stop it at the end of the block. Raises the limit of open files to its maximum."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        with native_postgres(directory) as postgres, stand_in(directory) as upstream:
            yield Ground(directory, postgres, postmaster(directory), upstream, scale)


def calls_max() -> int:
    """The maximum of connections that one process may hold on this machine."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_FILES
