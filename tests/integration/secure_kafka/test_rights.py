"""Each process with a broker that has ACLs, and exactly the rights that the page lists for it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from stack.ports import free_ports
from tests.infra.kafka import Worker, native_connect
from tests.infra.postgres import PostgresServer
from tests.infra.rights import Right, grant, kafka_with_rights, listed_rights
from tests.infra.secure_kafka import SecureKafka
from tests.integration.cdc.conftest import OWN_PREFIX, Cdc, unregistered
from tests.integration.cdc.test_watcher import Watching
from tests.integration.notifier.conftest import Notifying, Topics
from tests.integration.processes.conftest import make, nobody
from tests.integration.reconciler.conftest import Rows, aged, rows
from tests.process import Process, started
from tests.wait import until
from tidings.contract.ids import new_event_id
from tidings.contract.topics import DEAD_LETTERS, REMOVALS, SUBMISSIONS

__all__ = ["make", "rows"]

LISTED = listed_rights()


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with kafka_with_rights(tmp_path_factory.mktemp("rights") / "broker") as made:
        yield made


def _settings(kafka: SecureKafka, process: str, without: Collection[Right] = ()) -> dict[str, str]:
    """The settings of a user that has the process's rights except `without`."""
    grant(kafka, process, LISTED[process] - frozenset(without))
    return kafka.environment("SCRAM-SHA-512", TIDINGS_KAFKA_USERNAME=process)


def _reported(process: Process, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


@pytest.fixture
def worker(kafka: SecureKafka, tmp_path: Path) -> Iterator[Worker]:
    grant(kafka, "connect", LISTED["connect"])
    with native_connect(tmp_path, kafka.open, more=kafka.worker_properties("connect")) as made:
        yield made


@pytest.fixture
def cdc(postgres: PostgresServer, worker: Worker, kafka: SecureKafka) -> Iterator[Cdc]:
    with unregistered(postgres, worker, kafka.open) as made:
        made.prefix = OWN_PREFIX
        yield made


def test_connect_and_the_watcher_work_with_their_rights_and_name_a_missing_one(
    cdc: Cdc, kafka: SecureKafka, tmp_path: Path
) -> None:
    watching = Watching(cdc, cdc.watcher_environment() | _settings(kafka, "watcher"), tmp_path)
    watching.write(cdc.config())
    with started(watching.process):
        until(lambda: cdc.slot_value("active"), 60)
        submission_id = cdc.submit()
        assert cdc.events("submissions", cdc.has(submission_id), 60)
        # Debezium's own topic, to which it first writes after 10 s.
        topics = Topics(kafka.open)
        until(lambda: f"__debezium-heartbeat.{OWN_PREFIX}" in topics.names(), 60)
        until(lambda: not watching.faults(), 60)
        grant(kafka, "connect", LISTED["connect"] - {Right("topic", "tidings.cdc.*", "WRITE")})
        cdc.submit()
        until(lambda: "TopicAuthorizationException" in watching.faults().get("connector", ""), 60)
        grant(kafka, "connect", LISTED["connect"])
        until(lambda: not watching.faults(), 90)


def _notifying(kafka: SecureKafka, tmp_path: Path, without: Collection[Right] = ()) -> Notifying:
    settings = _settings(kafka, "notifier", without)
    made = Notifying(settings.pop("TIDINGS_KAFKA"), tmp_path, "rights", **settings)
    made.process.ready_url = None
    return made


def test_the_notifier_writes_all_events_with_its_rights(kafka: SecureKafka, tmp_path: Path) -> None:
    topics = Topics(kafka.open)
    notifying = _notifying(kafka, tmp_path)
    with started(notifying.process):
        first, second = topics.change(), topics.change(channel="team-a")
        topics.write("tidings.cdc.results", "odd", b"no JSON")
        until(lambda: topics.completions(first, second) == sorted([first, second]), 60)
        until(lambda: "tidings.completions.team-a" in topics.names(), 60)
        until(lambda: [m.key for m in topics.read("tidings.completions.team-a")] == [second], 60)
        until(lambda: any(m.key == "odd" for m in topics.read(DEAD_LETTERS)), 60)
        assert notifying.said("kafka_failed") == []


@pytest.mark.parametrize(
    "right",
    [Right("group", "tidings-notifier", "READ"), Right("transactional id", "tidings-notifier-*", "WRITE")],
    ids=str,
)
def test_a_notifier_without_one_of_its_rights_names_it(kafka: SecureKafka, tmp_path: Path, right: Right) -> None:
    Topics(kafka.open)
    notifying = _notifying(kafka, tmp_path, [right])
    with started(notifying.process):
        until(lambda: any("AuthorizationFailed" in line["error"] for line in notifying.said("kafka_failed")), 60)


def _other(kafka: SecureKafka, name: str, make: Any, without: Collection[Right] = (), **settings: str) -> Process:
    [port] = free_ports(1)
    made: Process = make(f"services.{name}", nobody(), port, **(_settings(kafka, name, without) | settings))
    return made


@pytest.mark.parametrize("group", ["tidings-dispatcher", "tidings-removals"])
def test_the_dispatcher_reads_and_writes_dead_letters_with_its_rights_and_names_a_missing_one(
    kafka: SecureKafka, make: Any, group: str
) -> None:
    odd, topic = f"odd-{group}", SUBMISSIONS if group == "tidings-dispatcher" else REMOVALS
    topics = Topics(kafka.open)
    with ExitStack() as stack:
        process = stack.enter_context(started(_other(kafka, "dispatcher", make)))
        topics.write(topic, odd, b"no JSON")
        until(lambda: any(m.key == odd for m in topics.read(DEAD_LETTERS)), 60)
        assert _reported(process, "kafka_failed") == []
    right = Right("group", group, "READ")
    with started(_other(kafka, "dispatcher", make, [right])) as process:
        until(lambda: any("AuthorizationFailed" in line["error"] for line in _reported(process, "kafka_failed")), 60)


def test_the_reconciler_reads_the_completions_with_its_rights(
    kafka: SecureKafka, make: Any, rows: Rows, postgres: PostgresServer, database: str
) -> None:
    Topics(kafka.open)
    # The position of an earlier reconciler. The first one of a database begins with results from then on.
    rows.store.set_low_water("completions", aged(new_event_id(), 7200))
    submission_id = rows.submit()
    rows.end(submission_id)
    url = postgres.url(database, role="tidings_reconciler")
    with started(
        _other(
            kafka,
            "reconciler",
            make,
            RECONCILER_DATABASE_URL=url,
            RECONCILER_INTERVAL_SECONDS="0.5",
            RECONCILER_GRACE_SECONDS="1",
        )
    ):
        # The event of this result is on no topic, which is known when all events have been read.
        until(lambda: rows.nudged("result_nudges", "submission_id") == [submission_id], 60)
