"""A broker made by hand, as the dispatcher uses one.
tests/integration/dispatcher/test_broker_contract.py compares it with a real one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka.structs import OffsetAndMetadata, TopicPartition

from tidings.contract.topics import REMOVALS, RESULTS, SUBMISSIONS

BATCH_MAX = 100


@dataclass(frozen=True)
class Record:
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes


class Partitions:
    """A consumer, and the one partition of each topic; a poll that finds nothing takes its timeout of `now`."""

    def __init__(self, *topics: str) -> None:
        self.now = 0.0
        self.polls = 0
        self.committed: dict[str, int] = {}
        self._records: dict[TopicPartition, list[Record]] = {
            TopicPartition(topic, 0): [] for topic in topics or (SUBMISSIONS, RESULTS, REMOVALS)
        }
        self._positions = dict.fromkeys(self._records, 0)
        self._paused: set[TopicPartition] = set()
        self._assigned = set(self._records)

    def add(self, topic: str, value: bytes) -> None:
        records = self._records[TopicPartition(topic, 0)]
        records.append(Record(topic, 0, len(records), b"key", value))

    def lose(self, *topics: str) -> None:
        """Another member gets the partitions of `topics`."""
        lost = {TopicPartition(topic, 0) for topic in topics}
        self._assigned -= lost
        self._paused -= lost

    def poll(self, timeout_ms: int) -> dict[TopicPartition, Sequence[Record]]:
        self.polls += 1
        found: dict[TopicPartition, Sequence[Record]] = {}
        left = BATCH_MAX
        for partition in self._records:
            if partition in self._assigned - self._paused:
                records = self._records[partition][self._positions[partition] :][:left]
                left -= len(records)
                self._positions[partition] += len(records)
                found |= {partition: records} if records else {}
        if not found:
            self.now += timeout_ms / 1000
        return found

    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        self.committed |= {partition.topic: offset.offset for partition, offset in offsets.items()}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition not in self._assigned:
            raise ValueError("Unassigned partition")
        self._positions[partition] = offset

    def assignment(self) -> set[TopicPartition]:
        return set(self._assigned)

    def paused(self) -> set[TopicPartition]:
        return set(self._paused)

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused |= self._known(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._paused -= self._known(partitions)

    def _known(self, partitions: Sequence[TopicPartition]) -> set[TopicPartition]:
        for partition in partitions:
            if partition not in self._assigned:
                raise KeyError(partition)
        return set(partitions)


class Letters:
    """The producer of dead letters."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, topic: str, **message: Any) -> Letters:
        self.sent.append({"topic": topic, **message})
        return self

    def get(self, timeout: float) -> None:
        assert timeout > 0
