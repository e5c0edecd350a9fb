"""Keeps the connector registered and running. Connect never restarts a failed task by itself; this does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge
from structlog.stdlib import BoundLogger

from services.watcher.connector import ConnectorState, ConnectUnavailableError

# 1, 2, 4 … 60 s between restarts that did not help; a minute of running well forgets them.
FIRST_SECONDS = 1.0
MAX_SECONDS = 60.0


class ConnectorPort(Protocol):
    def register(self, wanted: Mapping[str, str]) -> bool: ...
    def state(self) -> ConnectorState | None: ...
    def restart_failed(self) -> None: ...


def backoff_seconds(restarts: int) -> float:
    """The pause before restart number `restarts` + 1."""
    return 0.0 if restarts == 0 else min(MAX_SECONDS, FIRST_SECONDS * 2.0 ** min(restarts - 1, 10))


@dataclass
class _Trouble:
    restarts: int = 0
    next_at: float = 0.0
    well_since: float | None = None


class Watcher:
    def __init__(
        self,
        connector: ConnectorPort,
        wanted: Mapping[str, str],
        *,
        clock: Callable[[], float],
        registry: CollectorRegistry,
        log: BoundLogger,
    ) -> None:
        self._connector = connector
        self._wanted = wanted
        self._clock = clock
        self._log = log
        self._trouble = _Trouble()
        self._registered = False
        self._running = Gauge("tidings_connector_running", "1 while connector and task run", registry=registry)
        self._restarts = Counter("tidings_connector_restarts", "Restarts of a failed connector", registry=registry)
        self.fault: str | None = "not looked at yet"

    def run_once(self) -> int:
        """Look once and do what is needed; how much was done. Raises `RegistrationRefusedError`."""
        try:
            done = self._look()
        except ConnectUnavailableError as error:
            self._running.set(0)
            self.fault = f"Connect does not answer: {error}"
            return 0
        self._running.set(0 if self.fault else 1)
        return done

    def _look(self) -> int:
        if not self._registered:
            changed = self._connector.register(self._wanted)
            self._registered = True
            if changed:
                self._log.info("connector_registered")
                return 1
        state = self._connector.state()
        if state is None:
            self._registered = False  # somebody deleted it; the next look registers it again
            self.fault = "the connector is not registered"
            return 0
        if state.failed:
            return self._restart(state)
        self.fault = None if state.running else f"connector {state.connector}, tasks {', '.join(state.tasks) or 'none'}"
        self._recover(state)
        return 0

    def _restart(self, state: ConnectorState) -> int:
        self.fault = f"failed: {state.trace}"
        self._trouble.well_since = None
        if self._clock() < self._trouble.next_at:
            return 0
        self._trouble.restarts += 1
        self._trouble.next_at = self._clock() + backoff_seconds(self._trouble.restarts)
        self._log.error("connector_failed", reason=state.trace, restart=self._trouble.restarts)
        self._connector.restart_failed()
        self._restarts.inc()
        return 1

    def _recover(self, state: ConnectorState) -> None:
        if not self._trouble.restarts or not state.running:
            return
        if self._trouble.well_since is None:
            self._trouble.well_since = self._clock()
            self._log.info("connector_running_again", restarts=self._trouble.restarts)
        elif self._clock() - self._trouble.well_since > MAX_SECONDS:
            self._trouble = _Trouble()
