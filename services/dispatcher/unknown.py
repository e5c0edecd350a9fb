"""Submissions that the api does not know yet: each is asked for again for a time of its own, while others go on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from kafka.structs import TopicPartition

from tidings.contract.change import SubmissionChange

# Postgres hands a commit to Debezium before other transactions see it; with a synchronous standby a round trip before, or
# for as long as the standby is away. What is not seen after so long is told aloud instead of waited for.
UNKNOWN_SECONDS = 30.0
# Most are seen after milliseconds: asked for again after 0.1 s, and then whenever half of their age has passed again.
ASK_SECONDS_MIN = 0.1
# Offsets are held back for these; more of them are a fault of the api, for which all wait.
UNKNOWN_MAX = 1000


@dataclass
class Unknown:
    """`record` is what it was read from; `since` is when it was first not found."""

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
    """No I/O. `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._by_id: dict[str, Unknown] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._by_id

    def __iter__(self) -> Iterator[Unknown]:
        return iter(self._by_id.values())

    def add(self, change: SubmissionChange, record: Any, now: float) -> bool:
        """False: there is no room."""
        if len(self._by_id) >= UNKNOWN_MAX:
            return False
        self._by_id[str(change.id)] = Unknown(change, record, now, now + ASK_SECONDS_MIN)
        return True

    def to_ask(self, now: float) -> list[Unknown]:
        return [one for one in self if now >= one.ask_at]

    def still(self, asked: Collection[Unknown], unknown: Collection[str], now: float) -> list[Unknown]:
        """Of `asked` the api still does not know `unknown`. Those for which the time is over are forgotten, and answered."""
        over = []
        for one in asked:
            one.ask_at = now + max(ASK_SECONDS_MIN, (now - one.since) / 2)
            if one.id not in unknown:
                del self._by_id[one.id]
            elif now - one.since >= UNKNOWN_SECONDS:
                over.append(self._by_id.pop(one.id))
        return over

    def begin_anew(self, now: float) -> None:
        """The api did not answer for a while, which says nothing of these."""
        for one in self:
            one.since, one.ask_at = now, now

    def forget(self, *, but: Collection[TopicPartition]) -> None:
        """Other partitions are read by others now."""
        self._by_id = {id_: one for id_, one in self._by_id.items() if one.partition in but}

    def clear(self) -> None:
        self._by_id.clear()

    def floors(self) -> dict[TopicPartition, int]:
        """The first offset of each partition that cannot be committed past."""
        floors: dict[TopicPartition, int] = {}
        for one in self:
            floors[one.partition] = min(one.record.offset, floors.get(one.partition, one.record.offset))
        return floors
