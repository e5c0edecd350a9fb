"""Kafka for tests: one broker a run. Tests share it, and keep apart by names of topics and groups of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stack.child import Child
from stack.jars import class_path, read_lock, repository_of
from stack.java import find_java
from stack.jvm import Jvm
from stack.kafka import Kafka
from stack.ports import free_ports

_START_SECONDS_MAX = 60


def native_jvm() -> Jvm:
    return Jvm(find_java(os.environ), class_path(read_lock(), repository_of(os.environ)))


@contextmanager
def native_kafka(directory: Path, jvm: Jvm) -> Iterator[str]:
    """The bootstrap servers of a broker in `directory`."""
    port, controller_port = free_ports(2)
    kafka = Kafka(directory / "kafka", jvm, port, controller_port)
    kafka.create()
    child = Child(kafka.program(log=directory / "kafka.log"))
    try:
        child.wait_until(kafka.ready, seconds=_START_SECONDS_MAX)
        yield kafka.bootstrap_servers
    finally:
        child.stop()
