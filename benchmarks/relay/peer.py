"""One run of a peer: a sender and a worker with the peer's interpreter, a new database or redis, and the saved answers."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.relay.contest import VoidError
from benchmarks.relay.ground import Ground
from benchmarks.relay.ours import BATCHES, Sending
from benchmarks.relay.redis import Redis, redis_server
from benchmarks.relay.upstream import answer_of
from benchmarks.relay.venv import interpreter
from stack.servers import die_with_parent
from tests.process import ROOT
from tests.wait import until
from tidings.database.queries import load_queries

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Peer:
    """`worker` is the arguments after the interpreter. `result_key` is the key of an answer in redis, if it is saved
    there.
    """

    name: str
    module: str
    pins: str = "peers.txt"
    worker: tuple[str, ...] = ()
    result_key: str | None = None
    result_database: int = 0

    @property
    def script(self) -> str:
        return f"benchmarks.relay.peers.{self.module}"


PGQUEUER = Peer("pgqueuer", "with_pgqueuer")
PROCRASTINATE = Peer("procrastinate", "with_procrastinate")
CELERY = Peer(
    "celery-gevent",
    "with_celery",
    worker=(
        *("celery", "-A", "benchmarks.relay.peers.with_celery", "worker", "-P", "gevent", "-c", "{concurrency}"),
        *("--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"),
    ),
    result_key="celery-task-meta-{id}",
    result_database=1,
)
ARQ = Peer("arq", "with_arq", pins="peers-arq.txt", result_key="arq:result:{id}")
PEERS = (PGQUEUER, PROCRASTINATE, CELERY, ARQ)


@dataclass
class Working:
    """A peer with a running sender. `start` starts its worker, `enqueue` sends jobs, and `wait` waits for their
    answers.
    """

    peer: Peer
    python: Path
    environment: dict[str, str]
    log: Path
    concurrency: int
    database_url: str
    redis: Redis | None
    sender: subprocess.Popen[str]
    stack: ExitStack
    system: list[int] = field(default_factory=list)

    def start(self) -> None:
        """Start the worker. It may take a second until it accepts jobs."""
        words = self.peer.worker or (self.peer.script, "work")
        command = [str(self.python), "-m", *(word.format(concurrency=self.concurrency) for word in words)]
        worker = self.stack.enter_context(_child(command, self.environment, self.log))
        self.system.append(worker.pid)

    def enqueue(self, ids: Sequence[str], delay: str, sending: Sending = BATCHES) -> tuple[float, float]:
        """Send jobs. Return the times at which the sender began and ended, in epoch seconds."""
        order = {"ids": list(ids), "delay": delay, "batch": sending.batch, "senders": sending.senders}
        assert self.sender.stdin is not None
        self.sender.stdin.write(json.dumps(order) + "\n")
        self.sender.stdin.flush()
        said = _line(self.sender, self.log)
        return said["began"], said["ended"]

    def wait(self, ids: Sequence[str], prefix: str, seconds: float) -> float:
        """Wait until all answers are saved. Return the time of the last, in epoch seconds. Raises `VoidError`."""
        if self.redis is not None:
            return self._wait_in_redis(ids, seconds)
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            return _wait_in_postgres(connection, len(ids), f"{prefix}%", seconds)

    def left(self) -> int:
        """The number of jobs without a stored end, of a peer on Postgres."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            row = connection.execute(load_queries("benchmarks.relay")[f"left_{self.peer.name}"]).fetchone()
        assert row is not None
        return int(row[0])

    def _wait_in_redis(self, ids: Sequence[str], seconds: float) -> float:
        assert self.redis is not None
        assert self.peer.result_key is not None
        keys = [self.peer.result_key.format(id=id_) for id_ in ids]
        redis, number = self.redis, self.peer.result_database
        _until(lambda: redis.command("EXISTS", *keys, database=number) == len(keys), seconds)
        ended = time.time()
        for id_, key in zip(ids, keys, strict=True):
            raw = redis.command("GET", key, database=number)
            assert isinstance(raw, bytes)
            text = answer_of(id_)
            if text not in raw and json.dumps(text.decode()).encode()[1:-1] not in raw:
                raise VoidError(f"the answer to {id_} is not the upstream's")
        return ended


@contextmanager
def working(
    peer: Peer, ground: Ground, *, concurrency: int, keep: bool = True, notify: bool = False
) -> Iterator[Working]:
    """A peer with a new store and a sender that waits for orders. Its worker is not started."""
    python = interpreter(peer.pins)
    log = ground.directory / f"{peer.name}.log"
    with ExitStack() as stack:
        redis = None
        database = stack.enter_context(ground.postgres.database(template="template1"))
        environment = {"BENCH_DATABASE_URL": ground.postgres.url(database), "BENCH_UPSTREAM": ground.upstream.origin()}
        environment |= {"BENCH_CONCURRENCY": str(concurrency), "BENCH_KEEP": "1" if keep else "0"}
        environment["BENCH_NOTIFY"] = "1" if notify else "0"
        if peer.result_key is not None:
            redis = stack.enter_context(redis_server(ground.directory / f"redis-{time.monotonic_ns()}"))
            environment["BENCH_REDIS_PORT"] = str(redis.port)
        else:
            with psycopg.connect(ground.postgres.url(database), autocommit=True) as connection:
                connection.execute(load_queries("benchmarks.relay")["create_answers"])
            _install([str(python), "-m", peer.script, "install"], environment)
        command = [str(python), "-m", peer.script, "enqueue"]
        sender = stack.enter_context(_child(command, environment, log))
        _line(sender, log)
        found = Working(
            peer, python, environment, log, concurrency, ground.postgres.url(database), redis, sender, stack
        )
        if redis is not None:
            found.system.append(redis.pid)
        yield found


def _wait_in_postgres(connection: psycopg.Connection[Any], count: int, prefix: str, seconds: float) -> float:
    queries = load_queries("benchmarks.relay")

    def saved() -> tuple[int, int, float]:
        row = connection.execute(queries["saved"], {"prefix": prefix}).fetchone()
        assert row is not None
        return int(row[0]), int(row[1]), float(row[2])

    _until(lambda: saved()[1] >= count, seconds, saved)
    rows, distinct, last = saved()
    if rows != distinct:
        raise VoidError(f"{rows - distinct} answers are saved twice")
    for id_, body in connection.execute(queries["wrong"], {"prefix": prefix}):
        if body.encode() != answer_of(id_):
            raise VoidError(f"the answer to {id_} is not the upstream's")
    return last


def _until(condition: Callable[[], bool], seconds: float, told: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise VoidError(f"not all are saved after {seconds:g} s {told()}")
        time.sleep(POLL_SECONDS)


def _install(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=ROOT, env=_environment(environment), capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise RuntimeError(f"the peer's tables could not be made: {done.stderr[-300:]}")


@contextmanager
def _child(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_environment(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if command[-1] == "enqueue" else output,
            stderr=output,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(20)


def _environment(environment: dict[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT)} | environment


def _line(process: subprocess.Popen[str], log: Path) -> dict[str, float]:
    assert process.stdout is not None
    text = process.stdout.readline()
    if not text:
        raise RuntimeError(f"the peer's sender ended: {log.read_text()[-300:]}")
    return dict(json.loads(text))


def settle(worker: Working, prefix: str) -> None:
    """Run one job, so that the worker is running and connected when the measurement begins."""
    first = f"{prefix}-warm"
    worker.enqueue([first], "0")
    worker.wait([first], first, 30)


def upstream_has(ground: Ground, count: int, seconds: float, what: str = "calls") -> None:
    """Wait until the upstream has received `calls` or `callbacks` of `count` different ids."""
    until(lambda: ground.upstream.counts()[what] >= count, seconds, every=POLL_SECONDS)
