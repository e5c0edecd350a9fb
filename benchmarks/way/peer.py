"""A peer's whole way: its plain Flask endpoint under gunicorn, its worker, and a client that is told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.relay.ground import Ground
from benchmarks.relay.peer import CELERY, PGQUEUER, PROCRASTINATE, Peer, working
from benchmarks.way.waiting import OfPostgres, OfRedis, Waiting
from stack.ports import free_ports
from stack.servers import answers, die_with_parent
from tests.process import ROOT
from tests.wait import until

PEERS = (CELERY, PGQUEUER, PROCRASTINATE)
# What served each best in the relay's figures.
CONCURRENCY = {CELERY.name: 1_000, PGQUEUER.name: 1_000, PROCRASTINATE.name: 100}
# As our api has one process, and the endpoint of bench_submit two.
GUNICORN = ("-k", "gthread", "-w", "2", "--threads", "16", "--keep-alive", "60", "--log-level", "error")


@dataclass(frozen=True)
class RunningPeer:
    url: str
    pids: dict[str, int]
    waiting: Waiting


@contextmanager
def running(peer: Peer, ground: Ground) -> Iterator[RunningPeer]:
    """The peer with endpoint and worker, ready."""
    with working(peer, ground, concurrency=CONCURRENCY[peer.name], notify=True) as worker:
        worker.start()
        [port] = free_ports(1)
        command = [str(worker.python), "-m", "gunicorn", *GUNICORN, "-b", f"127.0.0.1:{port}"]
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with worker.log.open("ab") as output:
            process = subprocess.Popen(
                [*command, f"benchmarks.way.peers.endpoint:build('{peer.name}')"],
                cwd=ROOT,
                env=kept | {"PYTHONPATH": str(ROOT)} | worker.environment,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: answers(f"{url}/readyz"), 30)
            pids = {"endpoint": process.pid, "worker": worker.system[-1], "postgres": ground.postgres_pid}
            if worker.redis is None:
                waiting: Waiting = OfPostgres(worker.database_url)
            else:
                waiting = OfRedis(worker.redis.port)
                pids["redis"] = worker.redis.pid
            yield RunningPeer(f"{url}/submit", pids, waiting)
        finally:
            process.terminate()
            process.wait(30)
