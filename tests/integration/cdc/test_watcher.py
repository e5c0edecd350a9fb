"""The watcher process on a real Connect and a real slot: faults are repaired or the task restarted, and logged."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from stack.ports import free_ports
from tests.integration.cdc.conftest import Cdc
from tests.process import Process, started
from tests.wait import until

# Longer than errors.max.retries attempts, retriable.restart.connector.wait.ms apart.
OUTAGE_SECONDS = 15


class Watching:
    """A watcher of one connector, whose file a test may change."""

    def __init__(self, cdc: Cdc, environment: dict[str, str], directory: Path) -> None:
        self.file = directory / "connector.json"
        self._log = directory / "watcher.log"
        [port] = free_ports(1)
        self._url = f"http://127.0.0.1:{port}"
        own = {
            "TIDINGS_CONNECTOR_FILE": str(self.file),
            "TIDINGS_CONNECTOR_NAME": cdc.name,
            "WATCHER_LISTEN": f"127.0.0.1:{port}",
            "WATCHER_INTERVAL_SECONDS": "0.2",
        }
        self.process = Process("services.watcher", environment | own, self._log, ready_url=f"{self._url}/healthz")

    def write(self, config: dict[str, str]) -> None:
        self.file.write_text(json.dumps(config))

    def said(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def faults(self) -> dict[str, str]:
        return dict(requests.get(f"{self._url}/readyz", timeout=30).json()["faults"])

    def metric(self, name: str) -> float:
        lines = requests.get(f"{self._url}/metrics", timeout=30).text.splitlines()
        [value] = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
        return float(value)


@pytest.fixture
def watch(cdc: Cdc, tmp_path: Path) -> Iterator[Callable[..., Watching]]:
    """Start a watcher of this test's connector, with these settings in its file and the test's own names."""
    with ExitStack() as stack:

        def start(**changed: str) -> Watching:
            made = Watching(cdc, cdc.watcher_environment(), tmp_path)
            made.write(cdc.config() | changed)
            stack.enter_context(started(made.process))
            return made

        yield start


def test_a_failed_task_is_restarted_with_backoff_until_its_cause_is_removed(
    cdc: Cdc, watch: Callable[..., Watching]
) -> None:
    watching = watch(**{"transforms.submission_key.field": "no_such_column"})
    until(lambda: cdc.slot_value("active"), 60)
    missed = cdc.submit()
    failures = until(lambda: said if len(said := watching.said("connector_failed")) >= 3 else None, 60) or []
    assert [failure["restart"] for failure in failures[:3]] == [1, 2, 3]
    assert all("no_such_column" in failure["reason"] for failure in failures)
    assert "no_such_column" in until(watching.faults)["connector"]
    until(lambda: watching.metric("tidings_connector_restarts_total") >= 3)

    watching.process.stop()
    watching.write(cdc.config())
    watching.process.start()
    later = cdc.submit()
    events = cdc.events("submissions", cdc.has(missed, later), 60)
    assert sorted(event.key for event in events) == sorted([missed, later])
    until(lambda: not watching.faults(), 30)


def test_an_error_that_debezium_retries_ends_as_failed_and_recovers_without_intervention(
    cdc: Cdc, watch: Callable[..., Watching]
) -> None:
    cdc.execute("REVOKE SELECT ON tidings.submissions FROM tidings_cdc")
    before = cdc.submit()
    watching = watch()
    [failure] = until(lambda: watching.said("connector_failed")[:1], 90) or []
    assert "permission denied" in failure["reason"]
    cdc.execute("GRANT SELECT ON tidings.submissions TO tidings_cdc")
    cdc.events("submissions", cdc.has(before), 60)
    until(lambda: watching.said("connector_running_again"), 30)
    until(lambda: not watching.faults(), 30)


def test_an_outage_longer_than_debeziums_retries_is_recovered_from_when_it_ends(
    cdc: Cdc, watch: Callable[..., Watching]
) -> None:
    watching = watch()
    until(lambda: cdc.slot_value("active"), 60)
    before = cdc.submit()
    cdc.events("submissions", cdc.has(before))
    with _nobody_let_in(cdc):
        during = cdc.submit()
        ends_at = time.monotonic() + OUTAGE_SECONDS
        until(lambda: "Postgres does not respond" in watching.faults().get("slot", ""))
        until(lambda: time.monotonic() > ends_at, 2 * OUTAGE_SECONDS)
    after = cdc.submit()
    events = cdc.events("submissions", cdc.has(before, during, after), 90)
    assert sorted(event.key for event in events) == sorted([before, during, after])
    until(lambda: not watching.faults(), 60)


@contextmanager
def _nobody_let_in(cdc: Cdc) -> Iterator[None]:
    """During the block, Postgres refuses connections of Debezium and the watcher. Open ones are terminated."""
    cdc.execute("ALTER ROLE tidings_cdc NOLOGIN")
    try:
        cdc.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tidings_cdc'")
        yield
    finally:
        cdc.execute("ALTER ROLE tidings_cdc LOGIN")


def test_a_lost_slot_is_reported_and_repaired(cdc: Cdc, watch: Callable[..., Watching]) -> None:
    cdc.register()
    told = cdc.submit()
    cdc.events("submissions", cdc.has(told))
    cdc.stop()
    missed = cdc.submit()
    cdc.lose_slot()
    cdc.resume()
    watching = watch()
    cdc.events("submissions", cdc.has(told, missed), 60)
    later = cdc.submit()
    events = cdc.events("submissions", cdc.has(told, missed, later))
    told_as = {event.key: event.envelope["op"] for event in events}
    assert (told_as[missed], told_as[later]) == ("r", "c")
    assert "lost" in watching.said("slot_unwell")[0]["reason"]
    assert len(watching.said("lost_slot_dropped")) == 1
    until(lambda: watching.metric("tidings_slots_lost_total") == 1)
    until(lambda: not watching.faults(), 30)


def test_a_missing_publication_is_reported(cdc: Cdc, watch: Callable[..., Watching]) -> None:
    watching = watch()
    until(lambda: cdc.slot_value("active") and not watching.faults(), 60)
    cdc.execute("ALTER PUBLICATION tidings_cdc RENAME TO elsewhere")
    until(lambda: "publication is missing" in watching.faults().get("slot", ""), 20)
    cdc.execute("ALTER PUBLICATION elsewhere RENAME TO tidings_cdc")
    until(lambda: not watching.faults(), 20)
