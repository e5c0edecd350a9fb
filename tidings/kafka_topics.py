"""Making the topics on a real broker, and the consumer and producer settings that delivery hangs on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient
from kafka.errors import TopicAlreadyExistsError

from tidings.topics import Topic

REQUEST_TIMEOUT_MS = 15_000

# With static membership a copy that died and came back takes its partitions at once; one that stays away loses them to
# the others after this long. The broker allows no less than 6 s.
SESSION_TIMEOUT_MS = 10_000


def create_topics(bootstrap: str, topics: Iterable[Topic]) -> None:
    """Create what is missing of `topics` with the broker's default replication; what is there stays as it is."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","), request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        present = set(admin.list_topics())
        for topic in topics:
            if topic.name in present:
                continue
            wanted = {"num_partitions": topic.partitions, "configs": {"retention.ms": str(topic.retention_ms)}}
            try:
                admin.create_topics({topic.name: wanted}, timeout_ms=REQUEST_TIMEOUT_MS, wait_for_metadata=True)
            except TopicAlreadyExistsError:
                continue  # another process was quicker
    finally:
        admin.close()


def change_consumer(bootstrap: str, topics: Iterable[str], *, group: str, instance: str, batch_max: int) -> Any:
    """A consumer of committed changes that commits by hand and starts at the beginning when it has no offset."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap.split(","),
        group_id=group,
        group_instance_id=f"{group}-{instance}",
        client_id=f"{group}-{instance}",
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        fetch_min_bytes=1,
        fetch_max_wait_ms=500,
        max_poll_records=batch_max,
        session_timeout_ms=SESSION_TIMEOUT_MS,
        heartbeat_interval_ms=3_000,
        max_poll_interval_ms=300_000,
        metadata_max_age_ms=30_000,
    )
    consumer.subscribe(list(topics))
    return consumer
