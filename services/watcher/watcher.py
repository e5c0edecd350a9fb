"""Keeps the connector registered and running, and its slot readable, which neither Connect nor Debezium does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from services.watcher.connector import ConnectorState, ConnectUnavailableError
from services.watcher.metrics import WatcherMetrics
from services.watcher.slot import DatabaseUnavailableError, SlotState
from tidings.process.telemetry import Telemetry

# 1, 2, 4 … 30 s between restarts without success; after a minute of normal operation the count restarts.
FIRST_SECONDS = 1.0
MAX_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
# Debezium retries many errors indefinitely while Connect reports RUNNING. A restart of Postgres or of the worker takes
# less than this; a slot that is not read for longer needs an operator.
UNREAD_SECONDS = 30.0


class ConnectorPort(Protocol):
    def register(self, wanted: Mapping[str, str]) -> bool: ...
    def state(self) -> ConnectorState | None: ...
    def restart_failed(self) -> None: ...


class SlotPort(Protocol):
    def state(self) -> SlotState: ...
    def drop_lost(self) -> bool: ...


def backoff_seconds(restarts: int) -> float:
    """Return the pause before restart number `restarts` + 1."""
    return 0.0 if restarts == 0 else min(MAX_SECONDS, FIRST_SECONDS * 2.0 ** min(restarts - 1, 10))


def slot_fault(state: SlotState, unread_seconds: float) -> str | None:
    """Return the fault of the slot in words."""
    if not state.published:
        return "the publication is missing: rows that are committed meanwhile are never emitted"
    if state.lost:
        return "the slot is lost: Postgres removed WAL that was not read"
    if state.wal_status == "unreserved":
        return f"the slot is about to be lost: {state.retained_bytes} bytes of WAL are not read"
    if unread_seconds > UNREAD_SECONDS:
        return f"the slot is not read for more than {UNREAD_SECONDS:.0f} s"
    return None


@dataclass
class _Restarts:
    restarts: int = 0
    next_at: float = 0.0
    healthy_since: float | None = None


class Watcher:
    def __init__(
        self,
        connector: ConnectorPort,
        slot: SlotPort,
        wanted: Mapping[str, str],
        *,
        clock: Callable[[], float],
        telemetry: Telemetry[WatcherMetrics],
    ) -> None:
        self._connector = connector
        self._slot = slot
        self._wanted = wanted
        self._clock = clock
        self._log = telemetry.log
        self._restarts = _Restarts()
        self._registered = False
        self._read_at = clock()
        self._metrics = telemetry.metrics
        self.connector_fault: str | None = "not checked yet"
        self.slot_fault: str | None = None

    @property
    def fault(self) -> str | None:
        return self.connector_fault or self.slot_fault

    def run_once(self) -> int:
        """Look once and act on the result; return the number of actions. Raises `RegistrationRefusedError`."""
        done = 0
        try:
            done += self._check_connector()
        except ConnectUnavailableError as error:
            self.connector_fault = f"Connect does not respond: {error}"
        self._metrics.running.set(0 if self.connector_fault else 1)
        try:
            done += self._check_slot()
        except DatabaseUnavailableError as error:
            self._report_slot(f"Postgres does not respond: {error}")
        return done

    def _check_connector(self) -> int:
        if not self._registered:
            changed = self._connector.register(self._wanted)
            self._registered = True
            if changed:
                self._log.info("connector_registered")
                return 1
        state = self._connector.state()
        if state is None:
            self._registered = False  # the connector was deleted; the next look registers it again
            self.connector_fault = "the connector is not registered"
            return 0
        if state.failed:
            return self._restart(state)
        tasks = ", ".join(state.tasks) or "none"
        self.connector_fault = None if state.running else f"connector {state.connector}, tasks {tasks}"
        self._recover(state)
        return 0

    def _restart(self, state: ConnectorState) -> int:
        self.connector_fault = f"failed: {state.trace}"
        self._restarts.healthy_since = None
        if self._clock() < self._restarts.next_at:
            return 0
        self._restarts.restarts += 1
        self._restarts.next_at = self._clock() + backoff_seconds(self._restarts.restarts)
        self._log.error("connector_failed", reason=state.trace, restart=self._restarts.restarts)
        self._connector.restart_failed()
        self._metrics.restarts.inc()
        return 1

    def _recover(self, state: ConnectorState) -> None:
        if not self._restarts.restarts or not state.running:
            return
        if self._restarts.healthy_since is None:
            self._restarts.healthy_since = self._clock()
            self._log.info("connector_running_again", restarts=self._restarts.restarts)
        elif self._clock() - self._restarts.healthy_since > HEALTHY_SECONDS:
            self._restarts = _Restarts()

    def _check_slot(self) -> int:
        state = self._slot.state()
        if state.active:
            self._read_at = self._clock()
        self._metrics.retained_bytes.set(state.retained_bytes)
        self._report_slot(slot_fault(state, self._clock() - self._read_at))
        if not state.lost or not self._slot.drop_lost():
            return 0
        self._metrics.slots_lost.inc()
        # Debezium then finds neither slot nor position, and snapshot.mode=when_needed emits every stored row again.
        self._log.warning("lost_slot_dropped", next="all stored rows are emitted again")
        return 1

    def _report_slot(self, fault: str | None) -> None:
        if fault != self.slot_fault:
            if fault is None:
                self._log.info("slot_well_again")
            else:
                self._log.error("slot_unwell", reason=fault)
        self.slot_fault = fault
