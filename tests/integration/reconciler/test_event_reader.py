"""The reconciler's reader of the completions topic, on a real broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from uuid import UUID, uuid4

import pytest
from kafka import KafkaConsumer, KafkaProducer

from services.reconciler.event_reader import GOAL_SECONDS_MAX, KafkaEventReader, MissingTopicError
from tests.infra.kafka import Broker
from tests.unit.clock import Clock
from tests.wait import until
from tidings.contract.ids import new_event_id
from tidings.contract.topics import Topic
from tidings.kafka.cluster import Cluster
from tidings.kafka.topics import create_topics
from tidings.process.progress import AGE_SECONDS_MAX


def _reader(broker: Broker, topic: str, clock: Clock) -> KafkaEventReader:
    options = {"isolation_level": "read_committed", "enable_auto_commit": False, "auto_offset_reset": "earliest"}
    return KafkaEventReader(lambda: KafkaConsumer(bootstrap_servers=broker.bootstrap, **options), topic, clock)


@contextmanager
def _transaction(broker: Broker, topic: str) -> Iterator[UUID]:
    """An event in a transaction that stays open during the block."""
    event_id = new_event_id()
    name = f"{topic}-{event_id}"
    with closing(KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=name, linger_ms=0)) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        sent = producer.send(topic, key=b"k", value=b"{}", headers=[("ce_id", str(event_id).encode())], partition=0)
        sent.get(timeout=15)
        yield event_id
        producer.commit_transaction()


def test_behind_an_open_transaction_the_reader_is_not_at_the_end(broker: Broker) -> None:
    topic, clock, found = f"events-{uuid4().hex[:8]}", Clock(), list[UUID]()
    create_topics(Cluster(broker.bootstrap), [Topic(topic)])
    with closing(_reader(broker, topic, clock)) as reader:
        reader.begin(0)
        until(lambda: found.extend(reader.read()) or reader.caught_up(), 30)  # type: ignore[func-returns-value]
        with _transaction(broker, topic) as event_id:
            # Once, as the end that is compared may be older than the transaction.
            until(lambda: found.extend(reader.read()) or not reader.caught_up(), 30)  # type: ignore[func-returns-value]
            for _ in range(3):
                found.extend(reader.read())
                assert not reader.caught_up()
            assert (found, reader.fault) == ([], None)
            clock.seconds += AGE_SECONDS_MAX + 1
            assert not reader.caught_up()
            assert "do not move" in str(reader.fault)
        until(lambda: found.extend(reader.read()) or reader.caught_up(), 30)  # type: ignore[func-returns-value]
        assert (found, reader.fault) == ([event_id], None)


def test_a_topic_with_continuous_writes_is_read_to_an_end(broker: Broker) -> None:
    topic, found = f"events-{uuid4().hex[:8]}", list[UUID]()
    create_topics(Cluster(broker.bootstrap), [Topic(topic)])
    with closing(_reader(broker, topic, Clock())) as reader:
        reader.begin(0)
        until(lambda: found.extend(reader.read()) or reader.caught_up(), 30)  # type: ignore[func-returns-value]
        with _transaction(broker, topic) as first:
            until(lambda: found.extend(reader.read()) or not reader.caught_up(), 30)  # type: ignore[func-returns-value]
        with _transaction(broker, topic):
            until(lambda: found.extend(reader.read()) or reader.caught_up(), 30)  # type: ignore[func-returns-value]
            assert found == [first]


def test_an_old_end_is_not_mistaken_for_the_current_end(broker: Broker) -> None:
    topic, clock, found = f"events-{uuid4().hex[:8]}", Clock(), list[UUID]()
    create_topics(Cluster(broker.bootstrap), [Topic(topic)])
    with closing(_reader(broker, topic, clock)) as reader:
        reader.begin(0)
        until(lambda: found.extend(reader.read()) or reader.caught_up(), 30)  # type: ignore[func-returns-value]
        clock.seconds += GOAL_SECONDS_MAX + 1
        with _transaction(broker, topic):
            until(lambda: found.extend(reader.read()) or not reader.caught_up(), 30)  # type: ignore[func-returns-value]
            for _ in range(3):
                assert not reader.caught_up()


def test_the_real_topic_is_read_from_a_time_to_its_end(broker: Broker) -> None:
    topic = f"events-{uuid4().hex[:8]}"
    create_topics(Cluster(broker.bootstrap), [Topic(topic)])
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all")
    ids = [new_event_id() for _ in range(4)]
    for number, event_id in enumerate(ids):
        sent = producer.send(
            topic, key=str(number).encode(), value=b"{}", headers=[("ce_id", str(event_id).encode())],
            timestamp_ms=(number + 1) * 100_000,
        )  # fmt: skip
        sent.get(timeout=15)
    producer.send(topic, key=b"x", value=b"of a hand", timestamp_ms=900_000).get(timeout=15)
    producer.close(timeout=5)
    reader = _reader(broker, topic, Clock())
    try:
        reader.begin(200_000)
        found: list[UUID] = []
        until(lambda: found.extend(reader.read()) or reader.caught_up(), 30)  # type: ignore[func-returns-value]
        assert sorted(found) == ids[1:]
        reader.begin(10_000_000)
        found = []
        until(lambda: found.extend(reader.read()) or reader.caught_up(), 30)  # type: ignore[func-returns-value]
        assert found == []
    finally:
        reader.close()


def test_without_the_topic_nothing_can_be_compared(broker: Broker) -> None:
    reader = _reader(broker, f"none-{uuid4().hex[:8]}", Clock())
    with pytest.raises(MissingTopicError):
        reader.begin(0)
    reader.close()
