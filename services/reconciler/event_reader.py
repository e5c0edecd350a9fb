"""The topic of completions as the reconciler reads it: event ids, read committed, without a consumer group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from kafka.structs import TopicPartition

POLL_SECONDS = 0.5
RECORDS_MAX = 5_000


class MissingTopicError(Exception):
    """The topic is not there yet, or was deleted; without it nothing can be compared."""


class KafkaEventReader:
    """`new_consumer` makes a consumer without a group, which this object owns."""

    def __init__(self, new_consumer: Callable[[], Any], topic: str) -> None:
        self._new_consumer = new_consumer
        self._topic = topic
        self._consumer: Any = None
        self._partitions: list[TopicPartition] = []

    def begin(self, unix_ms: int) -> None:
        """Read from the first event at or after this time. Raises `KafkaError`, `MissingTopicError`."""
        self.close()
        self._consumer = self._new_consumer()
        numbers = self._consumer.partitions_for_topic(self._topic)
        if not numbers:
            raise MissingTopicError(f"there is no topic {self._topic}")
        self._partitions = [TopicPartition(self._topic, number) for number in sorted(numbers)]
        self._consumer.assign(self._partitions)
        # Now, and not with the next poll as `seek_to_end` does: what is written between the two must be read.
        ends = self._consumer.end_offsets(self._partitions)
        found = self._consumer.offsets_for_times(dict.fromkeys(self._partitions, unix_ms))
        for partition in self._partitions:
            at = found.get(partition)
            self._consumer.seek(partition, ends[partition] if at is None else at.offset)

    def read(self) -> list[UUID]:
        """The ids of the next events. Raises `KafkaError`."""
        batch = self._consumer.poll(timeout_ms=int(POLL_SECONDS * 1000), max_records=RECORDS_MAX)
        found = [_event_id(record) for records in batch.values() for record in records]
        return [id_ for id_ in found if id_ is not None]

    def caught_up(self) -> bool:
        """Whether all that is committed now was read. Raises `KafkaError`."""
        ends = self._consumer.end_offsets(self._partitions)
        return all(self._consumer.position(partition) >= end for partition, end in ends.items())

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


def _event_id(record: Any) -> UUID | None:
    """None for a record that is no completion; somebody may write to the topic by hand."""
    try:
        return UUID(dict(record.headers)["ce_id"].decode())
    except (KeyError, ValueError):
        return None
