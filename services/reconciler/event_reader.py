"""The reconciler's reader of the topic of completions: it reads committed event ids, without a consumer group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from kafka.structs import TopicPartition

from tidings.process.progress import UnmovedPartitions

POLL_SECONDS = 0.5
RECORDS_MAX = 5_000
# An older end offset is outdated. Rounds that read something follow each other within a second.
GOAL_SECONDS_MAX = 5.0


class MissingTopicError(Exception):
    """The topic does not exist yet, or was deleted; without it nothing can be compared."""


class KafkaEventReader:
    """`new_consumer` makes a consumer without a group, which this object owns. `clock` returns monotonic seconds."""

    def __init__(self, new_consumer: Callable[[], Any], topic: str, clock: Callable[[], float]) -> None:
        self._new_consumer = new_consumer
        self._topic = topic
        self._consumer: Any = None
        self._clock = clock
        self._partitions: list[TopicPartition] = []
        # The end of the log, and the time it was noted. A reader that has reached it has read everything that was in
        # the log then.
        self._goal: tuple[dict[TopicPartition, int], float] | None = None
        self._unmoved = UnmovedPartitions()
        self.fault: str | None = None

    def begin(self, unix_ms: int) -> None:
        """Read from the first event at or after this time. Raises `KafkaError`, `MissingTopicError`."""
        self.close()
        self._consumer = self._new_consumer()
        numbers = self._consumer.partitions_for_topic(self._topic)
        if not numbers:
            raise MissingTopicError(f"there is no topic {self._topic}")
        self._partitions = [TopicPartition(self._topic, number) for number in sorted(numbers)]
        self._consumer.assign(self._partitions)
        # The offset is resolved now, and not at the next poll as with `seek_to_end`: records written between the two
        # must be read.
        ends = self._consumer.end_offsets(self._partitions)
        found = self._consumer.offsets_for_times(dict.fromkeys(self._partitions, unix_ms))
        for partition in self._partitions:
            at = found.get(partition)
            self._consumer.seek(partition, ends[partition] if at is None else at.offset)

    def read(self) -> list[UUID]:
        """Return the ids of the next events. Raises `KafkaError`."""
        batch = self._consumer.poll(timeout_ms=int(POLL_SECONDS * 1000), max_records=RECORDS_MAX)
        found = [_event_id(record) for records in batch.values() for record in records]
        return [id_ for id_ in found if id_ is not None]

    def caught_up(self) -> bool:
        """Return whether everything that was in the log a moment ago was read, including open transactions. Raises
        `KafkaError`.

        For a consumer that reads committed records the log ends before the first open transaction, so that a hanging
        transaction would look like the end. The high watermark, which comes with each fetch, lies after it. It moves
        constantly under load, so it is noted, and reached in a later call.
        """
        ends = self._ends()
        if ends is None:
            return False
        positions = {part: self._consumer.position(part) for part in self._partitions}
        now = self._clock()
        self._unmoved.note({part: (positions[part], end) for part, end in ends.items()}, now)
        self.fault = self._unmoved.fault(now)
        goal, since = self._goal or (ends, now)
        if any(positions[part] < end for part, end in goal.items()):
            self._goal = goal, since
            return False
        self._goal = ends, now
        return now - since <= GOAL_SECONDS_MAX or all(positions[part] >= end for part, end in ends.items())

    def _ends(self) -> dict[TopicPartition, int] | None:
        """Return the end offsets of the partitions, or None while one of them was not fetched from."""
        committed = self._consumer.end_offsets(self._partitions)
        highs = {part: self._consumer.highwater(part) for part in self._partitions}
        if None in highs.values():
            return None
        return {part: max(committed[part], high or 0) for part, high in highs.items()}

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = self._goal = None
            self._unmoved.clear()
            self.fault = None


def _event_id(record: Any) -> UUID | None:
    """Return None for a record that is not a completion; an operator may write to the topic by hand."""
    try:
        return UUID(dict(record.headers)["ce_id"].decode())
    except (KeyError, ValueError):
        return None
