"""Consumers of changes join their group, and share partitions so that one of them reads a submission and its end."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from kafka.coordinator.assignors.range import RangePartitionAssignor

from tests.infra.kafka import Broker
from tests.wait import until
from tidings.contract.topics import PARTITIONS, RESULTS, SUBMISSIONS, TOPICS
from tidings.kafka.changes import Changes, Subscription, change_consumer
from tidings.kafka.cluster import Cluster
from tidings.kafka.topics import create_topics
from tidings.process import log
from tidings.process.progress import Progress

# Shorter than any poll of our processes: each poll ends before the coordinator has answered.
SHORT_POLL_MS = 1
# Without the longer polls of `Changes`, about one of three such members got no partitions.
MEMBERS = 6


def test_two_members_have_the_same_partitions_of_submissions_and_results(broker: Broker) -> None:
    cluster = Cluster(broker.bootstrap)
    create_topics(cluster, TOPICS)
    group = f"test-{uuid.uuid4().hex}"
    with ExitStack() as stack:
        # Each is polled in its own thread, as in its process: kafka-python forgets a join that ends while its consumer
        # is not polled, and joins again.
        members = [stack.enter_context(polled(member(cluster, group, instance))) for instance in "ab"]
        until(lambda: [len(one.assignment()) for one in members] == [PARTITIONS, PARTITIONS], 60)
        for one in members:
            assert _numbers(one, SUBMISSIONS) == _numbers(one, RESULTS) != set()
            # It offers no other, on which the members of a group could agree.
            assert one._consumer.config["partition_assignment_strategy"] == (RangePartitionAssignor,)


def test_a_member_with_short_polls_gets_its_partitions(broker: Broker) -> None:
    cluster = Cluster(broker.bootstrap)
    create_topics(cluster, TOPICS)
    for _ in range(MEMBERS):
        with ExitStack() as stack:
            changes = member(cluster, f"test-{uuid.uuid4().hex}", "a")
            stack.callback(changes.close)

            def assigned(changes: Changes = changes) -> int:
                changes.poll(timeout_ms=SHORT_POLL_MS)
                return len(changes.assignment())

            assert until(assigned, 30, every=0) == 2 * PARTITIONS


def member(cluster: Cluster, group: str, instance: str) -> Changes:
    progress = Progress(time.monotonic)
    return change_consumer(
        cluster, Subscription(group, instance, 1, (SUBMISSIONS, RESULTS)), progress=progress, log=log.get("test"),
    )  # fmt: skip


@contextmanager
def polled(changes: Changes) -> Iterator[Changes]:
    """`changes`, polled until the end of the block."""
    ended = threading.Event()

    def poll() -> None:
        while not ended.is_set():
            changes.poll(timeout_ms=100)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield changes
    finally:
        ended.set()
        thread.join(60)
        changes.close()


def _numbers(member: Changes, topic: str) -> set[int]:
    return {partition.partition for partition in member.assignment() if partition.topic == topic}
