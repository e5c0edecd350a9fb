"""The Kafka topics, by name. The first process that needs a topic creates it with these settings."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Submissions and results need the same number of partitions, because one dispatcher reads a submission and its result
# in order.
PARTITIONS = 4

SUBMISSIONS = "tidings.cdc.submissions"
ATTEMPTS = "tidings.cdc.attempts"
RESULTS = "tidings.cdc.results"
HEARTBEATS = "tidings.cdc.heartbeats"
REMOVALS = "tidings.cdc.content_removals"
COMPLETIONS = "tidings.completions"
# Not a channel of this name: the topics of channels begin with the name of the topic of completions.
CHANNEL_EVENTS = "tidings.channel-events"
DEAD_LETTERS = "tidings.dead-letters"

WEEK_MS = 7 * 24 * 3600 * 1000
HOUR_MS = 3600 * 1000

_CHANNEL = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Topic:
    """A topic to be created: its records are kept for `retention_ms` milliseconds."""

    name: str
    partitions: int = PARTITIONS
    retention_ms: int = WEEK_MS


TOPICS = (
    Topic(SUBMISSIONS),
    Topic(ATTEMPTS),
    Topic(RESULTS),
    Topic(HEARTBEATS, partitions=1, retention_ms=HOUR_MS),
    Topic(REMOVALS),
    Topic(COMPLETIONS),
    Topic(CHANNEL_EVENTS),
    Topic(DEAD_LETTERS, partitions=1),
)


def channel_topic(channel: str) -> Topic | None:
    """Return the topic of a channel, or None if the name is not valid for a topic."""
    return Topic(f"{COMPLETIONS}.{channel}") if _CHANNEL.fullmatch(channel) else None
