"""The broker made by hand and a real one behave alike, as far as the dispatcher uses them."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, Protocol

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import OffsetAndMetadata, TopicPartition

from tests.infra.kafka import Broker
from tests.unit.dispatcher.broker import BATCH_MAX, Letters, Partitions
from tests.wait import until
from tidings.contract.topics import DEAD_LETTERS, TOPICS, Topic
from tidings.kafka.changes import Changes, Subscription, change_consumer
from tidings.kafka.cluster import Cluster
from tidings.kafka.topics import create_topics
from tidings.process import log
from tidings.process.progress import Progress

POLL_MS = 400


class Side(Protocol):
    """One of the two: a consumer of the only partition of each of `topics`, and what a test does around it."""

    topics: tuple[str, str]

    @property
    def consumer(self) -> Any: ...

    def add(self, topic: str, value: bytes) -> None: ...

    def seconds(self) -> float: ...

    def committed(self, topic: str) -> int | None: ...

    def lost(self) -> AbstractContextManager[None]:
        """Meanwhile another member has all partitions."""


class Made:
    def __init__(self) -> None:
        self.topics = ("first", "second")
        self.consumer = Partitions(*self.topics)
        self.add = self.consumer.add

    def seconds(self) -> float:
        return self.consumer.now

    def committed(self, topic: str) -> int | None:
        return self.consumer.committed.get(topic)

    @contextmanager
    def lost(self) -> Iterator[None]:
        self.consumer.lose(*self.topics)
        yield


class Real:
    def __init__(self, broker: Broker) -> None:
        name = uuid.uuid4().hex
        self.topics = (f"first-{name}", f"second-{name}")
        self._cluster, self._group = Cluster(broker.bootstrap), f"group-{name}"
        create_topics(self._cluster, [Topic(topic, partitions=1) for topic in self.topics])
        self._producer = KafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=0)
        self.consumer = self._member("b")
        until(lambda: self.consumer.poll(POLL_MS) is not None and len(self.consumer.assignment()) == 2, 60)

    def _member(self, instance: str) -> Changes:
        return change_consumer(
            self._cluster, Subscription(self._group, instance, BATCH_MAX, self.topics),
            progress=Progress(time.monotonic), log=log.get("test"),
        )  # fmt: skip

    def add(self, topic: str, value: bytes) -> None:
        self._producer.send(topic, key=b"key", value=value).get(30)

    def seconds(self) -> float:
        return time.monotonic()

    def committed(self, topic: str) -> int | None:
        found = self.consumer._consumer.committed(TopicPartition(topic, 0))
        return None if found is None else int(found)

    @contextmanager
    def lost(self) -> Iterator[None]:
        # The range assignor gives the first partition of each topic to the first member by name.
        with closing(self._member("a")) as other, _polled(other):
            until(lambda: self.consumer.poll(POLL_MS) is not None and not self.consumer.assignment(), 60)
            yield

    def close(self) -> None:
        self.consumer.close()
        self._producer.close()


@contextmanager
def _polled(member: Changes) -> Iterator[None]:
    """`member` is polled in a thread of its own, as by its process."""
    ended = threading.Event()

    def poll() -> None:
        while not ended.is_set():
            member.poll(POLL_MS)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(60)


@pytest.fixture(scope="module")
def shared(broker: Broker) -> Iterator[Real]:
    """The real one of this module: a join takes seconds."""
    with closing(Real(broker)) as made:
        yield made


@pytest.fixture(params=["made by hand", "real"])
def side(request: pytest.FixtureRequest) -> Side:
    return Made() if request.param == "made by hand" else request.getfixturevalue("shared")


def test_records_come_in_order_and_once_in_batches_of_a_bounded_size(side: Side) -> None:
    first, second = side.topics
    for number in range(BATCH_MAX):
        side.add(first, b"%d" % number)
        side.add(second, b"%d" % number)
    records = read(side, 2 * BATCH_MAX)
    for topic in side.topics:
        mine = [record for record in records if record.topic == topic]
        assert [record.value for record in mine] == [b"%d" % number for number in range(BATCH_MAX)]
        assert [record.offset - mine[0].offset for record in mine] == list(range(BATCH_MAX))
        assert {(record.partition, record.key) for record in mine} == {(0, b"key")}
    assert side.consumer.poll(POLL_MS) == {}


def test_a_poll_that_finds_nothing_takes_its_timeout(side: Side) -> None:
    began = side.seconds()
    assert side.consumer.poll(POLL_MS) == {}
    assert side.seconds() - began >= POLL_MS / 1000 * 0.9


def test_a_partition_is_read_again_from_where_it_was_set_to(side: Side) -> None:
    first, _ = side.topics
    for value in (b"a", b"b", b"c"):
        side.add(first, value)
    records = read(side, 3)
    side.consumer.seek(TopicPartition(first, 0), records[1].offset)
    assert [record.value for record in read(side, 2)] == [b"b", b"c"]


def test_a_paused_partition_gives_nothing_and_loses_nothing_and_the_others_go_on(side: Side) -> None:
    first, second = (TopicPartition(topic, 0) for topic in side.topics)
    side.add(first.topic, b"before")
    [before] = read(side, 1)
    # As the dispatcher does it with a batch that it could not hand over.
    side.consumer.seek(first, before.offset)
    side.consumer.pause(first)
    side.add(first.topic, b"meanwhile")
    side.add(second.topic, b"other")
    assert side.consumer.paused() == {first}
    assert [record.value for record in read(side, 1)] == [b"other"]
    assert side.consumer.poll(POLL_MS) == {}
    side.consumer.resume(*side.consumer.paused())
    assert side.consumer.paused() == set()
    assert [record.value for record in read(side, 2)] == [b"before", b"meanwhile"]


def test_what_is_committed_is_of_the_named_partition_alone_and_moves_no_position(side: Side) -> None:
    first, second = side.topics
    before = side.committed(second)
    side.add(first, b"a")
    side.add(first, b"b")
    records = read(side, 2)
    side.consumer.commit({TopicPartition(first, 0): OffsetAndMetadata(records[0].offset, "", -1)})
    assert (side.committed(first), side.committed(second)) == (records[0].offset, before)
    assert side.consumer.poll(POLL_MS) == {}


def test_partitions_of_another_member_are_neither_read_nor_changed(side: Side) -> None:
    """The last of `side`: the real one has no partition afterwards."""
    first = TopicPartition(side.topics[0], 0)
    side.consumer.pause(first)
    assert side.consumer.assignment() == {TopicPartition(topic, 0) for topic in side.topics}
    with side.lost():
        assert (side.consumer.assignment(), side.consumer.paused()) == (set(), set())
        side.add(first.topic, b"for the other")
        assert side.consumer.poll(POLL_MS) == {}
        with pytest.raises(ValueError, match="Unassigned"):
            side.consumer.seek(first, 0)
        for act in (side.consumer.pause, side.consumer.resume):
            with pytest.raises(KeyError):
                act(first)


@pytest.mark.parametrize("real", [False, True], ids=["made by hand", "real"])
def test_a_dead_letter_is_sent_with_its_value_key_and_headers(broker: Broker, real: bool) -> None:
    key = uuid.uuid4().hex.encode()
    headers = [("reason", b"none")]
    make: Callable[[], Any] = (lambda: KafkaProducer(bootstrap_servers=broker.bootstrap)) if real else Letters
    create_topics(Cluster(broker.bootstrap), TOPICS)
    producer = make()
    producer.send(DEAD_LETTERS, key=key, value=b"value", headers=headers).get(timeout=30)
    assert (key, b"value", headers) in _letters(broker, producer)


def _letters(broker: Broker, producer: Any) -> list[Any]:
    if isinstance(producer, Letters):
        return [(each["key"], each["value"], each["headers"]) for each in producer.sent]
    producer.close()
    with closing(KafkaConsumer(bootstrap_servers=broker.bootstrap)) as consumer:
        part = TopicPartition(DEAD_LETTERS, 0)
        consumer.assign([part])
        consumer.seek_to_beginning(part)
        found: list[Any] = []

        def read_all() -> bool:
            for records in consumer.poll(timeout_ms=POLL_MS).values():
                found.extend((record.key, record.value, list(record.headers)) for record in records)
            return bool(consumer.position(part) >= consumer.end_offsets([part])[part])

        until(read_all)
    return found


def read(side: Side, number: int) -> list[Any]:
    """So many records, by as many polls as it takes, in the order in which they came."""
    found: list[Any] = []

    def enough() -> bool:
        batch = side.consumer.poll(POLL_MS)
        records = [record for each in batch.values() for record in each]
        assert len(records) <= BATCH_MAX
        assert all((record.topic, record.partition) == part for part, each in batch.items() for record in each)
        found.extend(records)
        return len(found) >= number

    until(enough, 30, every=0)
    assert len(found) == number
    return found
