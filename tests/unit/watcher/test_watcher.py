"""The watcher's decisions, with a fake connector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from services.watcher.connector import ConnectorState, ConnectUnavailableError, cause
from services.watcher.metrics import WatcherMetrics
from services.watcher.slot import DatabaseUnavailableError, SlotState
from services.watcher.watcher import UNREAD_SECONDS, Watcher, backoff_seconds
from tidings.process import log
from tidings.process.telemetry import Telemetry

RUNNING = ConnectorState("RUNNING", ("RUNNING",), "")
FAILED = ConnectorState("RUNNING", ("FAILED",), "boom")
READ = SlotState(active=True, wal_status="reserved", retained_bytes=100, published=True)
UNREAD = replace(READ, active=False)
LOST = replace(UNREAD, wal_status="lost", retained_bytes=0)
GONE = replace(LOST, wal_status=None)


class FakeConnector:
    def __init__(self) -> None:
        self.current: ConnectorState | None = None
        self.away = False
        self.registrations = 0
        self.restarts = 0

    def register(self, _wanted: Mapping[str, str]) -> bool:
        self._answer()
        self.registrations += 1
        self.current = RUNNING
        return True

    def state(self) -> ConnectorState | None:
        self._answer()
        return self.current

    def restart_failed(self) -> None:
        self._answer()
        self.restarts += 1

    def _answer(self) -> None:
        if self.away:
            raise ConnectUnavailableError("away")


class FakeSlot:
    """Drops like Postgres: only a lost slot, which then does not exist any more."""

    def __init__(self) -> None:
        self.current = READ
        self.away = False
        self.drops = 0

    def state(self) -> SlotState:
        self._answer()
        return self.current

    def drop_lost(self) -> bool:
        self._answer()
        if not self.current.lost or self.current.active:
            return False
        self.drops += 1
        self.current = GONE
        return True

    def _answer(self) -> None:
        if self.away:
            raise DatabaseUnavailableError("away")


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def made() -> tuple[Watcher, FakeConnector, Clock]:
    connector, clock = FakeConnector(), Clock()
    return made_with_slot(connector, FakeSlot(), clock), connector, clock


def made_with_slot(connector: FakeConnector, slot: FakeSlot, clock: Clock) -> Watcher:
    return Watcher(
        connector, slot, {}, clock=clock, telemetry=Telemetry(WatcherMetrics(CollectorRegistry()), log.get("test"))
    )


def test_it_registers_once_and_again_when_the_connector_is_gone() -> None:
    watcher, connector, _ = made()
    for _ in range(3):
        watcher.run_once()
    assert (connector.registrations, watcher.fault) == (1, None)
    connector.current = None
    watcher.run_once()
    watcher.run_once()
    assert connector.registrations == 2


def test_a_failed_task_is_restarted_with_growing_pauses() -> None:
    watcher, connector, clock = made()
    watcher.run_once()
    connector.current = FAILED
    restarted_at = []
    for second in range(20):
        clock.seconds = second
        if watcher.run_once():
            restarted_at.append(second)
    assert restarted_at == [0, 1, 3, 7, 15]
    assert connector.restarts == 5
    assert watcher.fault == "failed: boom"


def test_a_connect_that_is_down_is_reported_and_waited_for() -> None:
    watcher, connector, _ = made()
    connector.away = True
    assert watcher.run_once() == 0
    assert watcher.fault is not None
    connector.away = False
    watcher.run_once()
    watcher.run_once()
    assert watcher.fault is None


def test_pauses_are_bounded() -> None:
    assert [backoff_seconds(n) for n in (0, 1, 2, 3, 50)] == [0, 1, 2, 4, 30]


def test_a_lost_slot_is_dropped_once_and_reported() -> None:
    slot = FakeSlot()
    watcher = made_with_slot(FakeConnector(), slot, Clock())
    watcher.run_once()
    slot.current = LOST
    watcher.run_once()
    assert watcher.slot_fault is not None
    assert "lost" in watcher.slot_fault
    watcher.run_once()
    assert (slot.drops, watcher.fault) == (1, None)


def test_a_slot_without_a_reader_is_reported_although_the_connector_is_running() -> None:
    connector, slot, clock = FakeConnector(), FakeSlot(), Clock()
    watcher = made_with_slot(connector, slot, clock)
    watcher.run_once()
    watcher.run_once()
    slot.current = UNREAD
    clock.seconds = UNREAD_SECONDS
    watcher.run_once()
    assert watcher.fault is None
    clock.seconds = UNREAD_SECONDS + 1
    watcher.run_once()
    assert connector.current == RUNNING
    assert watcher.fault == "the slot is not read for more than 30 s"
    slot.current = READ
    watcher.run_once()
    assert watcher.fault is None


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (replace(READ, published=False), "publication"),
        (replace(UNREAD, wal_status="unreserved"), "about to be lost"),
    ],
)
def test_a_future_loss_of_changes_is_reported(state: SlotState, word: str) -> None:
    slot = FakeSlot()
    watcher = made_with_slot(FakeConnector(), slot, Clock())
    watcher.run_once()
    slot.current = state
    watcher.run_once()
    assert word in str(watcher.slot_fault)
    assert slot.drops == 0


def test_a_postgres_that_is_down_is_reported_and_waited_for() -> None:
    slot = FakeSlot()
    watcher = made_with_slot(FakeConnector(), slot, Clock())
    slot.away = True
    watcher.run_once()
    assert "Postgres" in str(watcher.slot_fault)
    slot.away = False
    watcher.run_once()
    assert watcher.slot_fault is None


def test_a_failures_cause_is_its_innermost() -> None:
    trace = "org.Outer: it stopped\n\tat a.b(C.java:1)\nCaused by: org.Mid: why\n\tat d\nCaused by: org.Inner: no grant\n\t... 3"
    assert cause(trace) == "org.Inner: no grant"
    assert cause("org.Outer: it stopped\n\tat a.b(C.java:1)") == "org.Outer: it stopped"
    assert cause("") == ""
