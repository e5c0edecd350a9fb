"""Connect and the watcher with a broker that requires TLS and SASL: rows become changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.kafka import Worker, native_connect
from tests.infra.postgres import PostgresServer
from tests.infra.secure_kafka import SecureKafka
from tests.integration.cdc.conftest import Cdc, unregistered
from tests.integration.cdc.test_watcher import Watching
from tests.process import started
from tests.wait import until


@pytest.fixture
def worker(secure: SecureKafka, tmp_path: Path) -> Iterator[Worker]:
    with native_connect(tmp_path, secure.open, more=secure.worker_properties()) as made:
        yield made


@pytest.fixture
def cdc(postgres: PostgresServer, worker: Worker, secure: SecureKafka) -> Iterator[Cdc]:
    with unregistered(postgres, worker, secure.open) as made:
        yield made


def test_a_row_becomes_a_change_and_the_watcher_sees_the_broker(cdc: Cdc, secure: SecureKafka, tmp_path: Path) -> None:
    settings = cdc.watcher_environment() | secure.environment("SCRAM-SHA-512")
    watching = Watching(cdc, settings, tmp_path)
    watching.write(cdc.config())
    with started(watching.process):
        until(lambda: cdc.slot_value("active"), 60)
        submission_id = cdc.submit()
        events = cdc.events("submissions", cdc.has(submission_id), 60)
        assert [event.key for event in events] == [submission_id]
        until(lambda: not watching.faults(), 60)
