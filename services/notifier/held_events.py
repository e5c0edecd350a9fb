"""An event held until the topic of its channel exists: the record of `tidings.channel-events`, written and read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kafka.structs import TopicPartition

from services.notifier.channels import ChannelUse
from tidings.contract.completion import Completion
from tidings.contract.topics import CHANNEL_EVENTS
from tidings.kafka.transactions import Outgoing

# Added to the event's own headers, which have other names.
CHANNEL, TENANT, TRIES = "tidings-channel", "tidings-tenant", "tidings-tries"


@dataclass(frozen=True)
class Held:
    """`tries`: how many times its topic was created and was not ready. `use` is None for a handwritten record."""

    partition: TopicPartition
    offset: int
    use: ChannelUse | None
    event: Completion
    tries: int = 0

    def to(self, topic: str) -> Outgoing:
        return Outgoing(topic, self.event.key, self.event.value, self.event.headers)


def held_record(event: Completion, use: ChannelUse, tries: int = 0) -> Outgoing:
    """Build the record that holds the event until its topic exists."""
    own = ((CHANNEL, use.channel.encode()), (TENANT, use.tenant.encode()), (TRIES, str(tries).encode()))
    return Outgoing(CHANNEL_EVENTS, event.key, event.value, (*event.headers, *own))


def read_held(partition: TopicPartition, record: Any) -> Held:
    """Parse `record`, as the consumer returns it."""
    own = {name: value for name, value in record.headers if name in {CHANNEL, TENANT, TRIES}}
    event = Completion(
        record.key or b"",
        tuple((name, value) for name, value in record.headers if name not in own),
        record.value or b"",
    )
    try:
        use, tries = ChannelUse(own[CHANNEL].decode(), own[TENANT].decode()), int(own[TRIES])
    except (KeyError, ValueError, AttributeError):
        return Held(partition, record.offset, None, event)
    return Held(partition, record.offset, use, event, tries)
