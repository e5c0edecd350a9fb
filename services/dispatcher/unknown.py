"""The submissions that the api does not know yet. Each is requested again on its own schedule, while others proceed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from kafka.structs import TopicPartition

from tidings.contract.change import SubmissionChange

# Postgres sends a commit to Debezium before other transactions see it: with a synchronous standby one round trip
# before, or for as long as the standby is unavailable. After this time the submission is logged as an error and put
# aside.
UNKNOWN_SECONDS = 30.0
# Most become visible within milliseconds: the dispatcher asks after 0.1 s, and then each time half of the submission's
# age has passed.
ASK_SECONDS_MIN = 0.1
# The offsets of these are not committed. More of them mean a fault of the api, and everything waits.
UNKNOWN_MAX = 1000


@dataclass
class Unknown:
    """`record` is the Kafka record of the change; `since` is the time when the submission was first not found."""

    change: SubmissionChange
    record: Any
    since: float
    ask_at: float

    @property
    def id(self) -> str:
        return str(self.change.id)

    @property
    def partition(self) -> TopicPartition:
        return TopicPartition(self.record.topic, self.record.partition)


class Unknowns:
    """Pure, without I/O. `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._by_id: dict[str, Unknown] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._by_id

    def __iter__(self) -> Iterator[Unknown]:
        return iter(self._by_id.values())

    def add(self, change: SubmissionChange, record: Any, now: float) -> bool:
        """Returns False if the maximum is reached."""
        if len(self._by_id) >= UNKNOWN_MAX:
            return False
        self._by_id[str(change.id)] = Unknown(change, record, now, now + ASK_SECONDS_MIN)
        return True

    def due(self, now: float) -> list[Unknown]:
        return [one for one in self if now >= one.ask_at]

    def update(self, asked_for: Collection[Unknown], unknown: Collection[str], now: float) -> list[Unknown]:
        """The api was asked for `asked_for` and does not know `unknown`.
        Forget the known and the expired ones; return the expired ones.
        """
        expired = []
        for one in asked_for:
            one.ask_at = now + max(ASK_SECONDS_MIN, (now - one.since) / 2)
            if one.id not in unknown:
                del self._by_id[one.id]
            elif now - one.since >= UNKNOWN_SECONDS:
                expired.append(self._by_id.pop(one.id))
        return expired

    def restart(self, now: float) -> None:
        """Restart the times: during an outage of the api nothing is known about these submissions."""
        for one in self:
            one.since, one.ask_at = now, now

    def forget(self, *, but: Collection[TopicPartition]) -> None:
        """Forget the submissions of partitions that other members read now."""
        self._by_id = {id_: one for id_, one in self._by_id.items() if one.partition in but}

    def clear(self) -> None:
        self._by_id.clear()

    def floors(self) -> dict[TopicPartition, int]:
        """Return the first offset of each partition that cannot be committed past."""
        floors: dict[TopicPartition, int] = {}
        for one in self:
            floors[one.partition] = min(one.record.offset, floors.get(one.partition, one.record.offset))
        return floors
