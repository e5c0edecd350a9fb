"""The watcher with a broker that has ACLs: it works with the listed rights, and reports each missing one."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing

import pytest
from kafka import KafkaProducer
from prometheus_client import CollectorRegistry

from services.watcher.broker import Broker
from services.watcher.transactions import CHECK_SECONDS, TransactionWatch
from tests.infra.hanging import hang
from tests.infra.rights import Right, grant, kafka_with_rights, listed_rights
from tests.infra.secure_kafka import SecureKafka
from tests.unit.clock import Clock
from tests.wait import until
from tidings.contract.topics import RESULTS, TOPICS
from tidings.kafka.cluster import Cluster, Sasl
from tidings.kafka.topics import create_topics
from tidings.process import log

RIGHTS = listed_rights()["watcher"]
OURS = Right("transactional id", "tidings-*", "DESCRIBE")
ABORT = Right("cluster", "", "CLUSTER_ACTION")
# Enough checks for an abort, by a watcher that aborts after 60 s.
LOOKS = 20


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with kafka_with_rights(tmp_path_factory.mktemp("rights") / "broker") as made:
        create_topics(Cluster(made.open.bootstrap), TOPICS)
        # A transaction with positions, which also creates Kafka's own two topics.
        with _transaction(made, "tidings-first") as producer:
            producer.commit_transaction()
        yield made


class _transaction:  # noqa: N801  used as a function
    """A producer of an open transaction with one record."""

    def __init__(self, kafka: SecureKafka, name: str) -> None:
        self._producer = KafkaProducer(bootstrap_servers=kafka.open.bootstrap, transactional_id=name, linger_ms=0)

    def __enter__(self) -> KafkaProducer:
        self._producer.init_transactions()
        self._producer.begin_transaction()
        self._producer.send(RESULTS, b"a change", partition=0).get(timeout=15)
        return self._producer

    def __exit__(self, *_: object) -> None:
        self._producer.close()


class Watching:
    """A watcher of a user that has exactly these rights."""

    def __init__(self, kafka: SecureKafka, rights: Collection[Right], stack: ExitStack) -> None:
        user = f"watcher-{uuid.uuid4().hex[:8]}"
        grant(kafka, user, rights)
        sasl = Sasl("SCRAM-SHA-512", user, kafka.password)
        port = stack.enter_context(closing(Broker(Cluster(kafka.bootstrap, "SASL_SSL", sasl, kafka.ca_file))))
        self.clock = Clock()
        self.watch = TransactionWatch(
            port, seconds_max=60, clock=self.clock, registry=CollectorRegistry(), log=log.get("test")
        )

    def look(self, times: int = 1) -> int:
        ended = 0
        for _ in range(times):
            ended += self.watch.run_once()
            self.clock.seconds += CHECK_SECONDS
        return ended

    def fault(self) -> str:
        self.look()
        return str(self.watch.fault)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.mark.parametrize("abort", [ABORT, Right("cluster", "", "ALTER")], ids=str)
def test_the_listed_rights_suffice(kafka: SecureKafka, stack: ExitStack, abort: Right) -> None:
    watching = Watching(kafka, RIGHTS - {ABORT} | {abort}, stack)
    until(lambda: watching.fault() == "None", 30)
    hang(kafka.open.bootstrap, RESULTS, 1, name=f"tidings-hang-{uuid.uuid4().hex}")
    hang(kafka.open.bootstrap, RESULTS, 2, name=f"connect-cluster-tidings-{uuid.uuid4().hex}")
    assert watching.look(LOOKS) == 2
    assert watching.watch.fault is None


@pytest.mark.parametrize("right", sorted(RIGHTS - {ABORT}, key=str), ids=str)
def test_a_missing_right_is_reported_at_the_first_check(kafka: SecureKafka, stack: ExitStack, right: Right) -> None:
    watching = Watching(kafka, RIGHTS - {right}, stack)
    until(lambda: f"{right.operation} on {right.resource} {right.name}" in watching.fault(), 30)


def test_an_open_transaction_that_cannot_be_described_is_not_aborted(kafka: SecureKafka, stack: ExitStack) -> None:
    watching = Watching(kafka, RIGHTS - {OURS}, stack)
    with _transaction(kafka, f"tidings-slow-{uuid.uuid4().hex}") as producer:
        assert watching.look(LOOKS) == 0
        assert watching.watch.fault is not None
        producer.commit_transaction()


def test_an_abort_that_is_refused_is_reported_with_the_missing_right(kafka: SecureKafka, stack: ExitStack) -> None:
    watching = Watching(kafka, RIGHTS - {ABORT}, stack)
    hang(kafka.open.bootstrap, RESULTS, 3, name=f"tidings-hang-{uuid.uuid4().hex}")
    assert watching.look(LOOKS) == 0
    assert "CLUSTER_ACTION on cluster" in str(watching.watch.fault)
    assert Watching(kafka, RIGHTS, stack).look(LOOKS) == 1


def test_a_transaction_of_another_application_is_reported_and_not_aborted(kafka: SecureKafka, stack: ExitStack) -> None:
    everybody = Right("transactional id", "*", "DESCRIBE")
    for rights in (RIGHTS, RIGHTS | {everybody}):
        watching = Watching(kafka, rights, stack)
        hang(kafka.open.bootstrap, RESULTS, 3, name=f"theirs-{uuid.uuid4().hex}")
        assert watching.look(LOOKS) == 0
        assert "open for more than 60 s" in str(watching.watch.fault)
        _end_by_hand(kafka)


def _end_by_hand(kafka: SecureKafka) -> None:
    with closing(Broker(Cluster(kafka.open.bootstrap))) as port:
        for one in port.open_transactions():
            port.abort(one)
