"""Transactions that no coordinator ends, on a real broker, are found, logged and aborted, and no others."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import requests
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.structs import TopicPartition
from prometheus_client import CollectorRegistry

from services.watcher.broker import Broker as Transactions
from services.watcher.transactions import CHECK_SECONDS, TransactionWatch
from stack.ports import free_ports
from tests.infra.hanging import hang
from tests.infra.kafka import Broker
from tests.integration.notifier.conftest import Notifying, Topics
from tests.process import Process, started
from tests.unit.clock import Clock
from tests.wait import until
from tidings.contract.topics import RESULTS
from tidings.kafka.cluster import Cluster
from tidings.process import log


@pytest.fixture
def topic(broker: Broker) -> Iterator[str]:
    name = f"tidings.test-{uuid.uuid4().hex}"
    with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap)) as admin:
        admin.create_topics({name: {"num_partitions": 1}}, wait_for_metadata=True)
        yield name
        admin.delete_topics([name])


@pytest.fixture
def watching(broker: Broker) -> Iterator[tuple[TransactionWatch, Clock]]:
    clock = Clock()
    with closing(Transactions(Cluster(broker.bootstrap))) as port:
        yield (
            TransactionWatch(port, seconds_max=60, clock=clock, registry=CollectorRegistry(), log=log.get("test")),
            clock,
        )


def _check(watching: tuple[TransactionWatch, Clock], times: int) -> int:
    watch, clock = watching
    ended = 0
    for _ in range(times):
        ended += watch.run_once()
        clock.seconds += CHECK_SECONDS
    return ended


def _committed(bootstrap: str, topic: str) -> list[bytes]:
    with closing(
        KafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False)
    ) as consumer:
        part = TopicPartition(topic, 0)
        consumer.assign([part])
        consumer.seek_to_beginning()
        records = consumer.poll(timeout_ms=3000)
        return [record.value for record in records.get(part, [])]


def test_a_transaction_that_its_coordinator_forgot_is_found_and_ended(
    broker: Broker, topic: str, watching: tuple[TransactionWatch, Clock]
) -> None:
    hang(broker.bootstrap, topic, 0, name=f"tidings-hang-{topic}")
    with closing(KafkaProducer(bootstrap_servers=broker.bootstrap)) as producer:
        producer.send(topic, b"behind it").get(timeout=15)
    assert _committed(broker.bootstrap, topic) == []  # otherwise there is nothing to find
    assert _check(watching, 3) == 0
    assert topic in str(watching[0].fault)
    assert _check(watching, 12) == 1
    assert watching[0].fault is None
    until(lambda: _committed(broker.bootstrap, topic) == [b"behind it"], 30)


def test_an_open_transaction_is_not_aborted_however_long_it_takes(
    broker: Broker, topic: str, watching: tuple[TransactionWatch, Clock]
) -> None:
    with closing(
        KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=f"slow-{topic}", linger_ms=0)
    ) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic, b"slow").get(timeout=15)
        assert _check(watching, 100) == 0
        assert "are open for more than 60 s" in str(watching[0].fault)
        producer.commit_transaction()
    assert _committed(broker.bootstrap, topic) == [b"slow"]
    _check(watching, 2)
    assert watching[0].fault is None


class Watching:
    """A watcher process without Connect and Postgres, which it only reports as down."""

    def __init__(self, bootstrap: str, directory: Path, **settings: str) -> None:
        [port, nobody] = free_ports(2)
        self._url = f"http://127.0.0.1:{port}"
        self._log = directory / "watcher.log"
        environment = {
            "TIDINGS_KAFKA": bootstrap,
            "TIDINGS_CONNECT_URL": f"http://127.0.0.1:{nobody}",
            "TIDINGS_CDC_DATABASE_HOST": "127.0.0.1",
            "TIDINGS_CDC_DATABASE_PORT": str(nobody),
            "TIDINGS_CDC_DATABASE_NAME": "none",
            "TIDINGS_CDC_DATABASE_PASSWORD": "none",
            "WATCHER_LISTEN": f"127.0.0.1:{port}",
        }
        self.process = Process("services.watcher", environment | settings, self._log, ready_url=f"{self._url}/healthz")

    def fault(self) -> str:
        return str(requests.get(f"{self._url}/readyz", timeout=30).json()["faults"].get("transactions", ""))

    def said(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]


def _faults(notifying: Notifying) -> str:
    return str(requests.get(f"{notifying._url}/readyz", timeout=30).json()["faults"].get("kafka", ""))


def test_a_notifier_behind_a_hanging_transaction_reports_it_and_continues_after_its_abort(
    broker: Broker, tmp_path: Path
) -> None:
    topics, name = Topics(broker), uuid.uuid4().hex
    with ExitStack() as stack:
        notifying = Notifying(topics.bootstrap, tmp_path, f"test-{name[:8]}")
        stack.enter_context(started(notifying.process))
        for partition in range(4):
            hang(broker.bootstrap, RESULTS, partition, name=f"tidings-hang-{name}-{partition}")
        ids = sorted(topics.change() for _ in range(2))
        until(lambda: "do not move" in _faults(notifying), 90)
        assert topics.completions(*ids) == []
        watching = Watching(broker.bootstrap, tmp_path, WATCHER_HANGING_SECONDS="12")
        stack.enter_context(started(watching.process))
        until(lambda: "no coordinator will end" in watching.fault(), 60)
        until(lambda: topics.completions(*ids) == ids, 90)
        until(lambda: _faults(notifying) == "" and watching.fault() == "", 60)
        assert len(watching.said("transaction_hangs")) == 4
        assert len(watching.said("hanging_transaction_aborted")) == 4
