"""The position at which a consumer continues when the log does not have its committed one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from kafka.errors import KafkaError, LogTruncationError, NoOffsetForPartitionError, OffsetOutOfRangeError
from kafka.structs import ConsumerGroupMetadata, MemberState, OffsetAndMetadata, TopicPartition

from tests.unit.clock import Clock
from tidings.kafka.changes import Changes, Subscription
from tidings.process import log
from tidings.process.progress import Progress

SUBSCRIPTION = Subscription("g", "0", 1, ("t",))
A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class Consumer:
    def __init__(self, beginnings: Mapping[TopicPartition, int]) -> None:
        self.errors: list[KafkaError] = []
        self.positions: dict[TopicPartition, int] = {}
        self.committed: dict[TopicPartition, int] = {}
        self._beginnings = beginnings

    def subscribe(self, topics: list[str]) -> None:
        assert topics == ["t"]

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        assert timeout_ms > 0
        if self.errors:
            raise self.errors.pop()
        return {}

    def group_metadata(self) -> ConsumerGroupMetadata:
        return ConsumerGroupMetadata(state=MemberState.STABLE)

    def assignment(self) -> set[TopicPartition]:
        return {A, B}

    def beginning_offsets(self, partitions: Iterable[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        assert timeout_ms > 0
        return {partition: self._beginnings[partition] for partition in partitions}

    def end_offsets(self, partitions: Iterable[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        assert timeout_ms > 0
        return dict.fromkeys(partitions, 9)

    def position(self, partition: TopicPartition, timeout_ms: int) -> int | None:
        assert timeout_ms > 0
        if self.errors:
            raise self.errors.pop()
        return self.positions.get(partition)

    def highwater(self, partition: TopicPartition) -> int | None:
        assert partition in self.assignment()
        return None

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.positions[partition] = offset

    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], timeout_ms: int) -> None:
        assert timeout_ms > 0
        self.committed |= {partition: offset.offset for partition, offset in offsets.items()}


@pytest.mark.parametrize(
    ("error", "beginning", "goes_on_at", "missed"),
    [
        (NoOffsetForPartitionError({A}), 0, 0, 0),
        (NoOffsetForPartitionError({A}), 7, 7, 7),
        (OffsetOutOfRangeError({A: 5}), 7, 7, 2),
        (OffsetOutOfRangeError({A: 500}), 0, 0, 0),
        (LogTruncationError({A: OffsetAndMetadata(4, "", -1)}), 0, 4, 0),
        (LogTruncationError({A: None}), 1, 1, 0),
    ],
    ids=["new group", "new group, expired", "expired", "topic made anew", "truncated", "truncated, unknown"],
)
def test_it_continues_at_the_start_of_the_log_and_counts_the_lost_records(
    error: KafkaError, beginning: int, goes_on_at: int, missed: int
) -> None:
    consumer, progress = Consumer({A: beginning}), Progress(Clock())
    changes = Changes(consumer, SUBSCRIPTION, progress=progress, log=log.get("test"))
    consumer.errors = [error]
    assert changes.poll(1) == {}
    assert consumer.positions == consumer.committed == {A: goes_on_at}
    assert progress.missed_total == missed


def test_a_partition_that_was_revoked_meanwhile_is_ignored() -> None:
    consumer = Consumer({})
    changes = Changes(consumer, SUBSCRIPTION, progress=Progress(Clock()), log=log.get("test"))
    consumer.errors = [OffsetOutOfRangeError({TopicPartition("t", 9): 5})]
    assert changes.poll(1) == {}
    assert consumer.positions == {}


def test_removals_that_expired_are_left_to_the_reconciler() -> None:
    consumer, progress = Consumer({A: 7}), Progress(Clock())
    changes = Changes(consumer, replace(SUBSCRIPTION, expiry_is_fault=False), progress=progress, log=log.get("test"))
    progress.round_completed(2)
    consumer.errors = [NoOffsetForPartitionError({A})]
    assert changes.poll(1) == {}
    assert consumer.positions == {A: 7}
    assert (progress.missed_total, progress.fault()) == (0, None)


def test_a_check_sets_the_position_of_a_partition_that_was_assigned_without_one() -> None:
    consumer = Consumer({A: 0, B: 0})
    changes = Changes(consumer, SUBSCRIPTION, progress=Progress(Clock()), log=log.get("test"))
    consumer.errors = [NoOffsetForPartitionError({A, B})]
    changes.look()
    assert consumer.positions == {A: 0, B: 0}
    assert changes.look() == 18
