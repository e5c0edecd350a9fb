"""The topics on a real broker: which there are, and making those that are missing."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import KafkaError, RequestTimedOutError, TopicAlreadyExistsError, for_code
from kafka.structs import TopicPartition

from tidings.contract.topics import Topic
from tidings.kafka.cluster import Cluster

REQUEST_TIMEOUT_MS = 15_000
# Bounds what a broker that is away costs whoever starts.
BOOTSTRAP_TIMEOUT_MS = 5_000
# Of the connection and of the answer; a transaction waits meanwhile.
ABSENT_TIMEOUT_MS = 2_000
READY_SECONDS = 10.0
# A topic that was made is in the broker's list within less than this, unless somebody has deleted it.
LISTED_SECONDS = 2.0
READY_EVERY_SECONDS = 0.05
# Why a topic that was made cannot be used; it may be later.
NOT_READY = "not ready in time"


@contextmanager
def administrator(
    cluster: Cluster, *, request_timeout_ms: int = REQUEST_TIMEOUT_MS, bootstrap_timeout_ms: int = BOOTSTRAP_TIMEOUT_MS
) -> Iterator[Any]:
    """An admin client for a few requests."""
    admin = KafkaAdminClient(
        **cluster.options,
        request_timeout_ms=request_timeout_ms,
        bootstrap_timeout_ms=bootstrap_timeout_ms,
    )
    try:
        yield admin
    finally:
        admin.close()


def create_topics(cluster: Cluster, topics: Iterable[Topic]) -> None:
    """Create what is missing of `topics` with the broker's default replication; what is there stays as it is.

    Raises a `KafkaError` when one is missing then.
    """
    kafka_topics = KafkaTopics(cluster)
    present = kafka_topics.present()
    for name, reason in kafka_topics.make([topic for topic in topics if topic.name not in present]).items():
        raise KafkaError(f"topic {name} cannot be made: {reason}")


class KafkaTopics:
    """The topics of one cluster; a connection is made for each call, as calls are rare."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def present(self) -> set[str]:
        """Raises a `KafkaError`."""
        with administrator(self._cluster) as admin:
            return set(admin.list_topics())

    def absent(self, topics: Collection[str]) -> frozenset[str]:
        """Those of `topics` that are not there, as far as the broker says so now, within 2 * ABSENT_TIMEOUT_MS."""
        try:
            with administrator(
                self._cluster, request_timeout_ms=ABSENT_TIMEOUT_MS, bootstrap_timeout_ms=ABSENT_TIMEOUT_MS
            ) as admin:
                return frozenset(topics) - set(admin.list_topics())
        except KafkaError:
            return frozenset()

    def make(self, topics: Collection[Topic]) -> dict[str, str]:
        """Make `topics` in one request; why those of the answer cannot be used, by name. Raises a `KafkaError`."""
        if not topics:
            return {}
        wanted = {
            topic.name: {"num_partitions": topic.partitions, "configs": {"retention.ms": str(topic.retention_ms)}}
            for topic in topics
        }
        with administrator(self._cluster) as admin:
            answer = admin.create_topics(wanted, timeout_ms=REQUEST_TIMEOUT_MS, raise_errors=False)
            refused = {topic["name"]: name for topic in answer["topics"] if (name := _refusal(topic["error_code"]))}
            return refused | _unready(admin, [name for name in wanted if name not in refused])


def _refusal(code: int) -> str | None:
    """Why a topic was not made; None when it was, when another process was quicker, or when it may yet be made."""
    error = for_code(code)
    return None if code == 0 or issubclass(error, TopicAlreadyExistsError | RequestTimedOutError) else error.__name__


def _unready(admin: Any, names: Collection[str]) -> dict[str, str]:
    """Wait until these topics can be written to; those that cannot in time.

    Metadata name a partition's leader before it has opened the partition's log, seconds before when there are many:
    only its own answer tells.
    """
    waiting, deleted, begun = set(names), set[str](), time.monotonic()
    while waiting:
        waiting -= {name for name in waiting if _opened(admin, name)}
        if waiting and time.monotonic() > begun + LISTED_SECONDS:
            deleted |= waiting - set(admin.list_topics())
            waiting -= deleted
        if time.monotonic() > begun + READY_SECONDS:
            break
        if waiting:
            time.sleep(READY_EVERY_SECONDS)
    return dict.fromkeys(waiting, NOT_READY) | dict.fromkeys(deleted, "deleted meanwhile")


def _opened(admin: Any, name: str) -> bool:
    try:
        [topic] = admin.describe_topics([name])
        parts = [TopicPartition(name, partition["partition_index"]) for partition in topic["partitions"]]
        admin.list_partition_offsets(dict.fromkeys(parts, OffsetSpec.LATEST), timeout_ms=REQUEST_TIMEOUT_MS)
    except KafkaError as error:
        if not error.retriable:
            raise
        return False
    return bool(parts)
