"""The main loop of a process that reads Kafka: it connects, works, and reconnects after any failure, until shutdown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from kafka.errors import FencedInstanceIdError, KafkaError
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from structlog.stdlib import BoundLogger

from tidings.kafka.changes import Changes
from tidings.kafka.cluster import Cluster
from tidings.kafka.failures import FencedError, OverdueError
from tidings.kafka.topics import administrator
from tidings.process.health import serve_health
from tidings.process.log import fault
from tidings.process.progress import Progress
from tidings.process.shutdown import Shutdown
from tidings.process.telemetry import Telemetry

# The exit status if another instance uses the same name; the supervisor decides on a restart.
EXIT_FENCED = 70
# 0.2, 0.4 … 10 s between two connections: a restart of a broker takes some 15 s.
FIRST_SECONDS = 0.2
BACKOFF_SECONDS_MAX = 10.0
# The interval between requests for the end of each log.
LAG_SECONDS = 2.0
# At shutdown the second loop of a process may be in a request; changes that it has not committed are read again.
JOIN_SECONDS = 4.0


@dataclass(frozen=True)
class Work:
    """The work of one connection: `run_once` handles one bounded batch from `changes`."""

    changes: Changes
    run_once: Callable[[], int]


@dataclass(frozen=True)
class Reader:
    """A process that reads Kafka: `name` is in its metrics and settings, `instance` distinguishes its instances.
    It reads from `cluster`, and answers health checks at `listen`.
    """

    name: str
    instance: str
    cluster: Cluster
    listen: str


@dataclass(frozen=True)
class Part:
    """The part of a process that one loop runs. `name` is in its metrics and its check; the main part has none."""

    connect: Callable[[ExitStack], Work]
    progress: Progress
    name: str = ""


def run(reader: Reader, main: Part, second: Part, *, shutdown: Shutdown, log: BoundLogger) -> int:
    """Run until a signal, with health and metrics; return the exit status. When one loop ends, the other ends too.

    The loop of `second` runs in its own thread.
    """
    checks = {"kafka": main.progress.fault, second.name: second.progress.fault}
    health = serve_health(f"{reader.name.upper()}_LISTEN", reader.listen, checks)
    statuses: list[int] = []

    def run_part(part: Part) -> None:
        name = f"{reader.name}_{part.name}" if part.name else reader.name
        telemetry = Telemetry(LoopMetrics(name, part.progress, REGISTRY), log)
        try:
            statuses.append(Loop(part, reader, shutdown=shutdown, telemetry=telemetry, clock=time.monotonic).run())
        finally:
            shutdown.request()

    thread = threading.Thread(target=run_part, args=[second], name=second.name, daemon=True)
    thread.start()
    run_part(main)
    thread.join(JOIN_SECONDS)
    health.stop()
    log.info("stopped", status=max(statuses))
    return max(statuses)


class LoopMetrics:
    """The metrics of the loop of `process`, in `registry`."""

    def __init__(self, process: str, progress: Progress, registry: CollectorRegistry) -> None:
        self.lag = Gauge(f"tidings_{process}_lag", "Changes on the topics not yet read", registry=registry)
        oldest = Gauge(f"tidings_{process}_oldest_seconds", "Age of the oldest waiting change", registry=registry)
        oldest.set_function(lambda: progress.oldest_seconds)
        missed = Gauge(
            f"tidings_{process}_changes_expired", "Changes that expired before they were read", registry=registry
        )
        missed.set_function(lambda: progress.missed_total)
        self.reconnects = Counter(f"tidings_{process}_reconnects", "Reconnections to Kafka", registry=registry)


class Loop:
    """`run` works until a signal. After any failure the loop reconnects within the process, with growing pauses: a
    process that exits at a failure would only repeat it at its supervisor's rate.
    """

    def __init__(
        self,
        part: Part,
        reader: Reader,
        *,
        shutdown: Shutdown,
        telemetry: Telemetry[LoopMetrics],
        clock: Callable[[], float],
    ) -> None:
        self._connect = part.connect
        self._reader = reader
        self._shutdown = shutdown
        self._progress = part.progress
        self._metrics = telemetry.metrics
        self._clock = clock
        self._log = telemetry.log
        self._failures = 0

    def run(self) -> int:
        """Return the exit status. The stack given to `connect` is closed after each failure, and at the end."""
        while not self._shutdown.requested():
            try:
                with ExitStack() as stack:
                    self._work(self._connect(stack))
            except (FencedError, FencedInstanceIdError) as error:
                by = f"another {self._reader.name} of this name"
                self._log.error("fenced", by=by, instance=self._reader.instance, error=fault(error))
                return EXIT_FENCED
            except KafkaError as error:
                self._wait("kafka_failed", error)
            except Exception as error:  # noqa: BLE001  the loop must survive any failure; see the class
                self._log.error("unexpected", exc_info=error)
                self._wait("loop_failed", error)
        return 0

    def _work(self, work: Work) -> None:
        measured_at = self._clock()
        while not self._shutdown.requested():
            try:
                if work.run_once():
                    self._failures = 0
            except OverdueError as error:
                if replaced(self._reader.cluster, work.changes):
                    raise FencedError(str(error)) from error
                raise
            self._progress.round_completed(len(work.changes.assignment()))
            if self._clock() - measured_at > LAG_SECONDS:
                self._metrics.lag.set(work.changes.look())
                # A replaced member without unread changes commits nothing, and so gets no error of the broker.
                if work.changes.silent and replaced(self._reader.cluster, work.changes):
                    raise FencedError("this member sends no heartbeats")
                measured_at = self._clock()

    def _wait(self, event: str, error: Exception) -> None:
        self._failures += 1
        seconds = min(BACKOFF_SECONDS_MAX, FIRST_SECONDS * 2 ** min(self._failures - 1, 10))
        self._progress.disconnected(f"Kafka: {fault(error)}")
        self._metrics.reconnects.inc()
        self._log.warning(event, error=fault(error), retry_in_seconds=seconds)
        self._shutdown.wait(seconds)


def replaced(cluster: Cluster, changes: Changes) -> bool:
    """Return whether another process is the group's member under the same name. Raises a `KafkaError`."""
    ours = changes.group_metadata()
    with administrator(cluster) as admin:
        group = admin.describe_groups([ours.group_id])[ours.group_id]
    return any(
        member["group_instance_id"] == ours.group_instance_id and member["member_id"] != ours.member_id
        for member in group["members"]
    )
