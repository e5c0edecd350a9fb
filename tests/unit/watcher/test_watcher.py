"""The watcher's decisions, on a connector made by hand."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from services.watcher.connector import ConnectorState, ConnectUnavailableError
from services.watcher.watcher import Watcher, backoff_seconds
from tidings import log

RUNNING = ConnectorState("RUNNING", ("RUNNING",), "")
FAILED = ConnectorState("RUNNING", ("FAILED",), "boom")


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


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def made() -> tuple[Watcher, FakeConnector, Clock]:
    connector, clock = FakeConnector(), Clock()
    return Watcher(connector, {}, clock=clock, registry=CollectorRegistry(), log=log.get("test")), connector, clock


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


def test_connect_away_is_told_and_waited_for() -> None:
    watcher, connector, _ = made()
    connector.away = True
    assert watcher.run_once() == 0
    assert watcher.fault is not None
    connector.away = False
    watcher.run_once()
    watcher.run_once()
    assert watcher.fault is None


def test_pauses_are_bounded() -> None:
    assert [backoff_seconds(n) for n in (0, 1, 2, 3, 50)] == [0, 1, 2, 4, 60]
