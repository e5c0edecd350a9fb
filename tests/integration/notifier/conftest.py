"""The notifier's environment on a real broker: changes in Debezium's format are written, and its records read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.structs import TopicPartition

from stack.ports import free_ports
from tests.infra.kafka import Broker
from tests.process import Process, started
from tests.wait import until
from tidings.contract.topics import COMPLETIONS, RESULTS, TOPICS
from tidings.kafka.cluster import Cluster
from tidings.kafka.topics import create_topics

ROW = {
    "tenant": "default", "target": "demo-images", "channel": None, "webhook": None, "metadata": None,
    "traceparent": None, "outcome": "succeeded", "reason": None, "status_code": 200,
    "content_type": "application/json", "body_size": 2, "body_sha256": "ab", "output": "{}",
    "submitted_at": "2026-01-01T00:00:00.000000Z", "created_at": "2026-01-01T00:00:02.500000Z",
}  # fmt: skip


@dataclass(frozen=True)
class Message:
    key: str
    value: bytes
    headers: dict[str, str]


class Topics:
    """The topics of a broker for a test. All records of a topic are read, and each test selects its own."""

    def __init__(self, broker: Broker) -> None:
        self.bootstrap = broker.bootstrap
        self.cluster = Cluster(broker.bootstrap)
        create_topics(self.cluster, TOPICS)

    def change(self, **changed: object) -> str:
        """Write a result's change, committed; return the submission's id."""
        submission_id = str(uuid.uuid4())
        row = ROW | {"submission_id": submission_id, "event_id": str(uuid.uuid4())} | changed
        self.write(RESULTS, submission_id, json.dumps({"op": "c", "after": row}).encode())
        return submission_id

    def changes(self, channels: Sequence[str | None]) -> list[str]:
        """Write one change for each of `channels` in one transaction; return the submissions' ids."""
        ids = [str(uuid.uuid4()) for _ in channels]
        with closing(KafkaProducer(bootstrap_servers=self.bootstrap, acks="all")) as producer:
            for id_, channel in zip(ids, channels, strict=True):
                row = ROW | {"submission_id": id_, "event_id": str(uuid.uuid4()), "channel": channel}
                producer.send(RESULTS, key=id_.encode(), value=json.dumps({"op": "c", "after": row}).encode())
            producer.flush(timeout=15)
        return ids

    def write(self, topic: str, key: str, value: bytes) -> None:
        with closing(KafkaProducer(bootstrap_servers=self.bootstrap, acks="all", linger_ms=0)) as producer:
            producer.send(topic, key=key.encode(), value=value).get(timeout=15)

    def read(self, topic: str, *, isolation: str = "read_committed") -> list[Message]:
        """All records in a topic now, up to the last that this isolation level shows."""
        options = {"isolation_level": isolation, "enable_auto_commit": False}
        with closing(KafkaConsumer(bootstrap_servers=self.bootstrap, **options)) as consumer:
            parts = [TopicPartition(topic, n) for n in until(lambda: consumer.partitions_for_topic(topic)) or ()]
            consumer.assign(parts)
            consumer.seek_to_beginning()
            ends, found = consumer.end_offsets(parts), list[Message]()

            def at_end() -> bool:
                for records in consumer.poll(timeout_ms=100).values():
                    for record in records:
                        headers = {name: value.decode() for name, value in record.headers}
                        found.append(Message((record.key or b"").decode(), record.value, headers))
                return all(consumer.position(part) >= end for part, end in ends.items())

            until(at_end, 20)
        return found

    def completions(self, *ids: str, isolation: str = "read_committed") -> list[str]:
        """The ids among `ids` that have a completion, one for each completion."""
        return sorted(m.key for m in self.read(COMPLETIONS, isolation=isolation) if m.key in ids)

    def names(self) -> set[str]:
        with closing(KafkaAdminClient(bootstrap_servers=self.bootstrap)) as admin:
            return set(admin.list_topics())


class Notifying:
    """A notifier process."""

    def __init__(self, bootstrap: str, directory: Path, instance: str, **settings: str) -> None:
        [port] = free_ports(1)
        self._url = f"http://127.0.0.1:{port}"
        self._log = directory / f"notifier-{port}.log"
        own = {"TIDINGS_KAFKA": bootstrap, "NOTIFIER_LISTEN": f"127.0.0.1:{port}", "NOTIFIER_INSTANCE": instance}
        self.process = Process("services.notifier", own | settings, self._log, ready_url=f"{self._url}/readyz")

    def process_url(self, path: str) -> str:
        return self._url + path

    def log(self) -> str:
        """The end of its log, for the message of a failing test."""
        return self._log.read_text()[-3000:]

    def said(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def metric(self, name: str) -> float:
        lines = requests.get(f"{self._url}/metrics", timeout=30).text.splitlines()
        [value] = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
        return float(value)


@pytest.fixture
def topics(broker: Broker) -> Topics:
    return Topics(broker)


@pytest.fixture
def instance() -> str:
    """A name for this test's notifier, so that it does not wait for the group membership of another test's."""
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def notify(topics: Topics, instance: str, tmp_path: Path) -> Iterator[Callable[..., Notifying]]:
    """Start a notifier, and wait until it is ready. Keyword arguments are variables of its environment."""
    with ExitStack() as stack:

        def start(**settings: str) -> Notifying:
            made = Notifying(topics.bootstrap, tmp_path, instance, **settings)
            stack.enter_context(started(made.process))
            return made

        yield start
