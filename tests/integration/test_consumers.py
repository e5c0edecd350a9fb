"""Consumers of changes share partitions so that one of them reads a submission and its end."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack

from kafka.coordinator.assignors.range import RangePartitionAssignor

from tests.infra.kafka import Broker
from tests.wait import until
from tidings.contract.topics import PARTITIONS, RESULTS, SUBMISSIONS, TOPICS
from tidings.kafka.changes import Changes, change_consumer
from tidings.kafka.cluster import Cluster
from tidings.kafka.topics import create_topics
from tidings.process import log
from tidings.process.progress import Progress


def test_two_members_have_the_same_partitions_of_submissions_and_results(broker: Broker) -> None:
    cluster = Cluster(broker.bootstrap)
    create_topics(cluster, TOPICS)
    group = f"test-{uuid.uuid4().hex}"
    with ExitStack() as stack:
        members = []
        for instance in "ab":
            changes = change_consumer(
                cluster, [SUBMISSIONS, RESULTS], group=group, instance=instance, batch_max=1,
                progress=Progress(time.monotonic), log=log.get("test"),
            )  # fmt: skip
            stack.callback(changes.close)
            members.append(changes)

        def shared() -> bool:
            for member in members:
                member.poll(timeout_ms=100)
            return [len(member.assignment()) for member in members] == [PARTITIONS, PARTITIONS]

        until(shared, 60)
        for member in members:
            assert _numbers(member, SUBMISSIONS) == _numbers(member, RESULTS) != set()
            # No other is offered, on which the members of a group might agree.
            assert member._consumer.config["partition_assignment_strategy"] == (RangePartitionAssignor,)


def _numbers(member: Changes, topic: str) -> set[int]:
    return {part.partition for part in member.assignment() if part.topic == topic}
