"""The topics on a real broker: which there are, and making those that are missing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, KafkaTimeoutError, RequestTimedOutError, TopicAlreadyExistsError, for_code

from tidings.topics import Topic

REQUEST_TIMEOUT_MS = 15_000
# Bounds what a broker that is away costs whoever starts.
BOOTSTRAP_TIMEOUT_MS = 5_000
# A topic that is made is usable once each partition has a leader, a moment later.
READY_TIMEOUT_MS = 10_000


@contextmanager
def administrator(bootstrap: str, *, request_timeout_ms: int = REQUEST_TIMEOUT_MS) -> Iterator[Any]:
    """An admin client for a few requests."""
    admin = KafkaAdminClient(
        bootstrap_servers=bootstrap.split(","),
        request_timeout_ms=request_timeout_ms,
        bootstrap_timeout_ms=BOOTSTRAP_TIMEOUT_MS,
    )
    try:
        yield admin
    finally:
        admin.close()


def create_topics(bootstrap: str, topics: Iterable[Topic]) -> None:
    """Create what is missing of `topics` with the broker's default replication; what is there stays as it is.

    Raises a `KafkaError` when one is missing then.
    """
    kafka_topics = KafkaTopics(bootstrap)
    present = kafka_topics.present()
    for name, reason in kafka_topics.make([topic for topic in topics if topic.name not in present]).items():
        raise KafkaError(f"topic {name} cannot be made: {reason}")


class KafkaTopics:
    """The topics of one cluster; a connection is made for each call, as calls are rare."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    def present(self) -> set[str]:
        """Raises a `KafkaError`."""
        with administrator(self._bootstrap) as admin:
            return set(admin.list_topics())

    def make(self, topics: Collection[Topic]) -> dict[str, str]:
        """Make `topics` in one request; why those of the answer cannot be used, by name. Raises a `KafkaError`."""
        if not topics:
            return {}
        wanted = {
            topic.name: {"num_partitions": topic.partitions, "configs": {"retention.ms": str(topic.retention_ms)}}
            for topic in topics
        }
        with administrator(self._bootstrap) as admin:
            answer = admin.create_topics(wanted, timeout_ms=REQUEST_TIMEOUT_MS, raise_errors=False)
            refused = {topic["name"]: name for topic in answer["topics"] if (name := _refusal(topic["error_code"]))}
            return refused | _unready(admin, [name for name in wanted if name not in refused])


def _refusal(code: int) -> str | None:
    """Why a topic was not made; None when it was, when another process was quicker, or when it may yet be made."""
    error = for_code(code)
    return None if code == 0 or issubclass(error, TopicAlreadyExistsError | RequestTimedOutError) else error.__name__


def _unready(admin: Any, names: list[str]) -> dict[str, str]:
    """Wait for the leaders of the partitions of these topics; those of which one has none in time."""
    try:
        admin.wait_for_topics(names, timeout_ms=READY_TIMEOUT_MS)
    except KafkaTimeoutError:
        described = admin.describe_topics(names)
        ready = {topic["name"] for topic in described if topic["error_code"] == 0 and _has_leaders(topic["partitions"])}
        return {name: "not ready in time" for name in names if name not in ready}
    return {}


def _has_leaders(partitions: Collection[dict[str, Any]]) -> bool:
    return bool(partitions) and all(partition["leader_id"] >= 0 for partition in partitions)
