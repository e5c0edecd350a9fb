"""The topics on a broker: list them, and create missing ones."""

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
# The time that an unavailable broker may delay a start.
BOOTSTRAP_TIMEOUT_MS = 5_000
# The timeout of the connection and of the response; a transaction waits meanwhile.
ABSENT_TIMEOUT_MS = 2_000
READY_SECONDS = 10.0
# A new topic appears in the broker's list within less than this, unless it was deleted.
LISTED_SECONDS = 2.0
READY_EVERY_SECONDS = 0.05
# The reason for a topic that was created but cannot be used yet; it may become ready later.
NOT_READY = "not ready in time"


@contextmanager
def administrator(
    cluster: Cluster, *, request_timeout_ms: int = REQUEST_TIMEOUT_MS, bootstrap_timeout_ms: int = BOOTSTRAP_TIMEOUT_MS
) -> Iterator[Any]:
    """Open an admin client for a few requests."""
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
    """Create the missing `topics` with the broker's default replication; existing topics are unchanged.

    Raises a `KafkaError` if a topic cannot be created.
    """
    kafka_topics = KafkaTopics(cluster)
    present = kafka_topics.present()
    for name, reason in kafka_topics.make([topic for topic in topics if topic.name not in present]).items():
        raise KafkaError(f"topic {name} cannot be created: {reason}")


class KafkaTopics:
    """The topics of one cluster. Each call opens a connection, because calls are rare."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def present(self) -> set[str]:
        """Return the names of all topics. Raises a `KafkaError`."""
        with administrator(self._cluster) as admin:
            return set(admin.list_topics())

    def absent(self, topics: Collection[str]) -> frozenset[str]:
        """Return those of `topics` that do not exist, within 2 * ABSENT_TIMEOUT_MS; none if the broker does not
        respond.
        """
        try:
            with administrator(
                self._cluster, request_timeout_ms=ABSENT_TIMEOUT_MS, bootstrap_timeout_ms=ABSENT_TIMEOUT_MS
            ) as admin:
                return frozenset(topics) - set(admin.list_topics())
        except KafkaError:
            return frozenset()

    def make(self, topics: Collection[Topic]) -> dict[str, str]:
        """Create `topics` in one request; return those that cannot be used, by name, with the reason. Raises a
        `KafkaError`.
        """
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
    """Return why a topic was not created; None if it was, by any process, or if the result is pending."""
    error = for_code(code)
    return None if code == 0 or issubclass(error, TopicAlreadyExistsError | RequestTimedOutError) else error.__name__


def _unready(admin: Any, names: Collection[str]) -> dict[str, str]:
    """Wait until these topics accept records; return those that do not in time.

    Metadata name the leader of a partition before it has opened the partition's log, seconds before if there are many:
    only the leader's own response proves it.
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
