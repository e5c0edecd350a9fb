"""A client that waits for messages, and notes when the message of each submission arrived."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from tidings.contract.topics import COMPLETIONS

# A loop looks so often at whether it is to end.
LOOK_SECONDS = 0.2


class Waiting(ABC):
    """`seen`: arrival in epoch seconds by submission; `twice`: how many messages came again."""

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}
        self.twice = 0
        self._ended = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def running(self) -> Iterator[Waiting]:
        self._thread.start()
        if not self._ready.wait(30):
            raise TimeoutError("the waiting client is not connected after 30 s")
        try:
            yield self
        finally:
            self._ended.set()
            self._thread.join(30)

    def clear(self) -> None:
        self.seen, self.twice = {}, 0

    def _run(self) -> None:
        for id_ in self._arrivals():
            if id_ in self.seen:
                self.twice += 1
            self.seen.setdefault(id_, time.time())

    @abstractmethod
    def _arrivals(self) -> Iterator[str]:
        """The submissions whose messages arrive, until `_ended`; sets `_ready` once connected."""


class OfKafka(Waiting):
    """Completion events, read committed."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__()
        self._bootstrap = bootstrap

    def _arrivals(self) -> Iterator[str]:
        consumer = KafkaConsumer(
            bootstrap_servers=self._bootstrap, isolation_level="read_committed", enable_auto_commit=False
        )
        parts = [TopicPartition(COMPLETIONS, number) for number in consumer.partitions_for_topic(COMPLETIONS) or ()]
        consumer.assign(parts)
        for part, end in consumer.end_offsets(parts).items():
            consumer.seek(part, end)
        self._ready.set()
        while not self._ended.is_set():
            for records in consumer.poll(timeout_ms=int(LOOK_SECONDS * 1000)).values():
                yield from (record.key.decode() for record in records)
        consumer.close()


class OfPostgres(Waiting):
    """NOTIFY `answers` with the id."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def _arrivals(self) -> Iterator[str]:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("LISTEN answers")
            self._ready.set()
            while not self._ended.is_set():
                for notify in connection.notifies(timeout=LOOK_SECONDS, stop_after=1):
                    yield notify.payload


class OfRedis(Waiting):
    """What celery's result store publishes on `celery-task-meta-<id>`, a channel a task."""

    _KEY = re.compile(rb"celery-task-meta-([0-9a-f-]{36})\r\n\$\d+\r\n(\{.*?\})\r\n")

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def _arrivals(self) -> Iterator[str]:
        with socket.create_connection(("127.0.0.1", self._port), timeout=LOOK_SECONDS) as connection:
            connection.sendall(b"PSUBSCRIBE celery-task-meta-*\r\n")
            self._ready.set()
            received = b""
            while not self._ended.is_set():
                try:
                    received += connection.recv(1 << 16)
                except TimeoutError:
                    continue
                end = 0
                for found in self._KEY.finditer(received):
                    end = found.end()
                    if json.loads(found[2])["status"] == "SUCCESS":
                        yield found[1].decode()
                received = received[end:]
