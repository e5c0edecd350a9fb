"""A look that is repeated in a thread of its own, so that one that waits holds up no other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from structlog.stdlib import BoundLogger

from services.reconciler.metrics import ReconcilerMetrics
from tidings.process.log import fault
from tidings.process.shutdown import Shutdown

# While there is more to do, looks follow each other; the pause leaves the database to others.
BUSY_PAUSE_SECONDS = 0.05
FAULT_PAUSE_SECONDS = 5.0
# Without a round that succeeded for so many intervals and a minute the process is not ready.
OVERDUE_INTERVALS = 3
OVERDUE_SECONDS = 60.0


@dataclass(frozen=True)
class Look:
    """`step` does a bounded amount of work and answers how much; 0: nothing more for now."""

    name: str
    interval_seconds: float
    step: Callable[[], int]
    close: Callable[[], None]
    # What its rounds found to be wrong although they succeed.
    fault: Callable[[], str | None] = lambda: None


class Repeating:
    """`start` the thread of one look; `fault` says why it is not well."""

    def __init__(
        self, look: Look, shutdown: Shutdown, metrics: ReconcilerMetrics, log: BoundLogger, clock: Callable[[], float]
    ) -> None:
        self._look = look
        self._shutdown = shutdown
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._succeeded_at = clock()
        self._thread = threading.Thread(target=self._run, name=look.name, daemon=True)

    @property
    def name(self) -> str:
        return self._look.name

    def start(self) -> Repeating:
        self._thread.start()
        return self

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def fault(self) -> str | None:
        """None while it works. For readiness."""
        if not self._thread.is_alive():
            return "its thread has ended"
        allowed = self._look.interval_seconds * OVERDUE_INTERVALS + OVERDUE_SECONDS
        age = self._clock() - self._succeeded_at
        return self._look.fault() if age <= allowed else f"no round has succeeded for {age:.0f} s"

    def _run(self) -> None:
        while not self._shutdown.requested():
            self._shutdown.wait(self._round())
        self._look.close()

    def _round(self) -> float:
        """One step; how long to wait before the next."""
        try:
            done = self._look.step()
        except Exception as error:  # noqa: BLE001  whatever it is, a later round may do
            self._metrics.faults.labels(self._look.name).inc()
            self._log.error("look_failed", look=self._look.name, error=fault(error))
            return FAULT_PAUSE_SECONDS
        self._succeeded_at = self._clock()
        return BUSY_PAUSE_SECONDS if done else self._look.interval_seconds
