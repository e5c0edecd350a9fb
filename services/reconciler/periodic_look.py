"""Repeats a look in its own thread, so that a slow look does not block the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from services.reconciler.metrics import ReconcilerMetrics
from tidings.process.log import fault
from tidings.process.shutdown import Shutdown
from tidings.process.telemetry import Telemetry

# While there is more to do, rounds follow each other with this pause, which leaves the database time for others.
BUSY_PAUSE_SECONDS = 0.05
FAULT_PAUSE_SECONDS = 5.0
# Without a successful round for this many intervals and a minute, the process is not ready.
OVERDUE_INTERVALS = 3
OVERDUE_SECONDS = 60.0


@dataclass(frozen=True)
class Look:
    """`step` does a bounded amount of work and returns the amount; 0 means that nothing is left for now."""

    name: str
    interval_seconds: float
    step: Callable[[], int]
    close: Callable[[], None]
    # Returns a fault that its rounds found, although they succeed.
    fault: Callable[[], str | None] = lambda: None


class PeriodicLook:
    """`start` starts the thread of one look; `fault` returns the reason why it fails."""

    def __init__(
        self, look: Look, shutdown: Shutdown, telemetry: Telemetry[ReconcilerMetrics], clock: Callable[[], float]
    ) -> None:
        self._look = look
        self._shutdown = shutdown
        self._metrics = telemetry.metrics
        self._log = telemetry.log
        self._clock = clock
        self._succeeded_at = clock()
        self._thread = threading.Thread(target=self._run, name=look.name, daemon=True)

    @property
    def name(self) -> str:
        return self._look.name

    def start(self) -> PeriodicLook:
        self._thread.start()
        return self

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def fault(self) -> str | None:
        """Return None while the look succeeds. For readiness."""
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
        """Run one step; return the pause before the next in seconds."""
        try:
            done = self._look.step()
        except Exception as error:  # noqa: BLE001  any error: a later round may succeed
            self._metrics.faults.labels(self._look.name).inc()
            self._log.error("look_failed", look=self._look.name, error=fault(error))
            return FAULT_PAUSE_SECONDS
        self._succeeded_at = self._clock()
        return BUSY_PAUSE_SECONDS if done else self._look.interval_seconds
