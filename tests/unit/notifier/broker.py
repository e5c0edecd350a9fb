"""A fake broker for both loops of the notifier."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka.errors import NotControllerError
from kafka.structs import TopicPartition

from services.notifier.channels import Channels, ChannelUse
from services.notifier.held_events import held_record
from services.notifier.tenants import Tenants
from tests.unit.clock import Clock
from tests.unit.test_events import ROW
from tidings.contract.completion import Completion
from tidings.contract.topics import RESULTS, Topic
from tidings.kafka.failures import RefusedError
from tidings.kafka.transactions import Outgoing

BATCH_MAX = 500
Verdict = Callable[[Sequence[Outgoing]], None]


@dataclass(frozen=True)
class Record:
    topic: str
    offset: int
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int = 0


class Broker:
    """Topics, one partition of records to read, and transactions in which `verdict` may raise."""

    def __init__(self, topic: str = RESULTS, channels_max: int = 1000, tenant_max: int = 1000) -> None:
        self.topic, self.clock = topic, Clock()
        self.records: list[Record] = []
        self.committed: list[Outgoing] = []
        self.offset = 0
        self.verdict: Verdict = lambda _: None
        self.existing: set[str] = set()
        self.attempts = 0
        self.away = False
        self.made: list[list[str]] = []
        self.unmade: dict[str, str] = {}
        self.channels = Channels(self, channels_max=channels_max, tenant_max=tenant_max, clock=self.clock)
        self.tenants = Tenants(self.clock)

    def has(self, *topics: str) -> None:
        """Create these topics, as another process would."""
        self.existing |= set(topics)
        self.channels.refresh()

    def tell(self, channel: str | None = None, *, tenant: str = "default") -> str:
        row = ROW | {"submission_id": str(uuid.uuid4()), "channel": channel, "tenant": tenant}
        self.add(json.dumps({"op": "c", "after": row}).encode())
        return str(row["submission_id"])

    def hold(self, channel: str, *, tenant: str = "default") -> str:
        """Add an event that waits for its channel's topic, as the loop of completions writes it."""
        id_ = str(uuid.uuid4())
        held = held_record(Completion(id_.encode(), (("ce_id", b"1"),), b"{}"), ChannelUse(channel, tenant))
        self.add(held.value or b"", id_.encode(), held.headers)
        return id_

    def add(self, value: bytes, key: bytes = b"key", headers: Sequence[tuple[str, bytes]] = ()) -> None:
        self.records.append(Record(self.topic, len(self.records), key, value, headers))

    def poll(self, timeout_ms: int) -> Mapping[TopicPartition, Sequence[Record]]:
        assert timeout_ms > 0
        return (
            {TopicPartition(self.topic, 0): self.records[self.offset : self.offset + BATCH_MAX]}
            if self.offset < len(self.records)
            else {}
        )

    def group_metadata(self) -> str:
        return "group"

    def commit(self, messages: Sequence[Outgoing], offsets: Mapping[TopicPartition, Any], _group: str) -> None:
        self.attempts += 1
        self.verdict(messages)
        self.committed += messages
        for message in messages:
            if message.topic == self.topic:  # the topic of held events is also written by its reader
                self.add(message.value or b"", message.key or b"", message.headers)
        [offset] = offsets.values()
        self.offset = offset.offset

    def present(self) -> Collection[str]:
        return self.existing

    def make(self, topics: Collection[Topic]) -> Mapping[str, str]:
        if self.away:
            raise NotControllerError
        names = [topic.name for topic in topics]
        self.made.append(names)
        self.existing |= set(names) - set(self.unmade)
        return {name: self.unmade[name] for name in names if name in self.unmade}

    def on(self, topic: str) -> list[str]:
        return [(message.key or b"").decode() for message in self.committed if message.topic == topic]


def refusing(topics: Collection[str], error: Callable[[], Exception]) -> Verdict:
    """Refuse the first record for one of `topics`."""

    def verdict(messages: Sequence[Outgoing]) -> None:
        for message in messages:
            if message.topic in topics:
                raise RefusedError(message.topic, error())

    return verdict
