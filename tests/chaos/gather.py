"""Reads the system's state from outside: from Postgres, Kafka, the provider stand-in and each process's metrics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import psycopg
import requests
from kafka import KafkaConsumer
from kafka.structs import TopicPartition
from psycopg.rows import dict_row

from tests.chaos.evidence import Completion, Logged, Stored
from tests.chaos.system import System
from tests.wait import until
from tidings.contract.topics import COMPLETIONS, DEAD_LETTERS, RESULTS
from tidings.database.queries import load_queries

READ_SECONDS = 60.0
# Gauges that are zero when the system is at rest, and the processes that have them.
GAUGES = {
    "relay": ("relay_in_flight", "relay_queue_depth", "relay_active"),
    "relay-2": ("relay_in_flight",),
    "dispatcher": (
        "tidings_dispatcher_lag",
        "tidings_dispatcher_removals_lag",
        "tidings_dispatcher_changes_expired",
        "tidings_dispatcher_unknown_waiting",
    ),
    "notifier": ("tidings_notifier_lag", "tidings_notifier_channels_lag", "tidings_notifier_changes_expired"),
    "notifier-2": ("tidings_notifier_lag", "tidings_notifier_channels_lag", "tidings_notifier_changes_expired"),
    "watcher": ("tidings_hanging_transactions",),
    "reconciler": ("tidings_messages_without_submission", "tidings_open_submissions"),
}


class Gatherer:
    def __init__(self, system: System) -> None:
        self._system = system
        self._queries = load_queries("tests.chaos", "queries.sql")

    def stored(self) -> tuple[Stored, ...]:
        return tuple(Stored(**row) for row in self._rows("stored"))

    def logged(self) -> tuple[Logged, ...]:
        return tuple(Logged(**row) for row in self._rows("logged"))

    def remains(self) -> dict[str, int]:
        """Counts that are zero when the system is at rest. Raises `OSError` or `psycopg.Error` while a part is down."""
        found = dict(self._rows("remains")[0])
        for process, names in GAUGES.items():
            figures = self._figures(process)
            found |= {f"{name} of {process}": int(figures.get(name, 0)) for name in names}
        provider = requests.get(f"{self._system.url('provider')}/calls", timeout=10).json()
        found["calls in progress at the provider"] = provider["received"] - provider["answered"] - provider["cut"]
        found |= {f"{name} is not ready": int(not self._system.ready(name)) for name in self._system.names}
        return found

    def calls(self, keys: Iterable[str]) -> dict[str, int]:
        session = requests.Session()
        url = self._system.url("provider")
        counts = {key: session.get(f"{url}/calls/{key}", timeout=10).json()["received"] for key in keys}
        return {key: count for key, count in counts.items() if count}

    def completions(self) -> tuple[Completion, ...]:
        """All committed events of the main topic and of channels."""
        found = []
        for record in self._records(lambda topic: topic.startswith(COMPLETIONS)):
            event, headers = json.loads(record.value), {name: value.decode() for name, value in record.headers}
            at = record.timestamp / 1000
            found.append(Completion(record.topic, record.key.decode(), headers["ce_id"], event["outcome"], at))
        return tuple(found)

    def changes(self) -> tuple[dict[str, int], dict[str, int]]:
        """By submission, the number of events of its result in the stream of changes: inserts of its row, and snapshot
        events. Nudges count as neither.
        """
        inserts: Counter[str] = Counter()
        snapshots: Counter[str] = Counter()
        for record in self._records(lambda topic: topic == RESULTS):
            envelope = json.loads(record.value)
            if envelope["op"] == "r":
                snapshots[record.key.decode()] += 1
            elif envelope["op"] == "c" and envelope["after"].get("nudged_at") is None:
                inserts[record.key.decode()] += 1
        return dict(inserts), dict(snapshots)

    def dead_letters(self) -> frozenset[bytes]:
        return frozenset(record.value for record in self._records(lambda topic: topic == DEAD_LETTERS))

    def _records(self, wanted: Callable[[str], bool]) -> list[Any]:
        consumer = KafkaConsumer(
            bootstrap_servers=f"127.0.0.1:{self._system.ports['kafka']}",
            isolation_level="read_committed", enable_auto_commit=False,
        )  # fmt: skip
        found: list[Any] = []
        try:
            topics = [topic for topic in consumer.topics() if wanted(topic)]
            parts = [TopicPartition(topic, n) for topic in topics for n in consumer.partitions_for_topic(topic) or ()]
            consumer.assign(parts)
            consumer.seek_to_beginning()

            def at_end() -> bool:
                for records in consumer.poll(timeout_ms=200).values():
                    found.extend(records)
                return all(consumer.position(part) >= end for part, end in consumer.end_offsets(parts).items())

            until(at_end, READ_SECONDS)
        finally:
            consumer.close()
        return found

    def _rows(self, query: str) -> list[dict[str, Any]]:
        url = self._system.stack.home.public_environment()["TIDINGS_DATABASE_URL"]
        with psycopg.connect(url, row_factory=dict_row, connect_timeout=5) as connection:
            return connection.execute(self._queries[query]).fetchall()

    def _figures(self, process: str) -> Mapping[str, float]:
        text = requests.get(f"{self._system.url(process)}/metrics", timeout=10).text
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in lines if "{" not in name}
