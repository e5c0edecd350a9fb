"""Kafka and Connect for tests, run natively: one of each per run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from stack.jars import class_path, read_lock, repository_of
from stack.java import find_java
from stack.ports import free_ports
from stack.servers import REST_USER, ConnectPasswords, Jvm, connect, kafka
from tests.infra.postgres import ROLE_PASSWORD

REST_PASSWORD = "rest-password"


def jvm() -> Jvm:
    return Jvm(find_java(os.environ), class_path(read_lock(), repository_of(os.environ)))


@dataclass(frozen=True)
class Broker:
    port: int

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def native_kafka(directory: Path) -> Iterator[Broker]:
    port, controller_port = free_ports(2)
    server = kafka(jvm(), directory / "kafka", port=port, controller_port=controller_port).start()
    try:
        server.wait()
        yield Broker(port)
    finally:
        server.stop()


@dataclass(frozen=True)
class Worker:
    """`password` belongs to the user `tidings`. None: its REST requires none."""

    url: str
    password: str | None = None

    @property
    def login(self) -> tuple[str, str] | None:
        return None if self.password is None else (REST_USER, self.password)


@contextmanager
def native_connect(directory: Path, broker: Broker, more: Mapping[str, str] = MappingProxyType({})) -> Iterator[Worker]:
    [port] = free_ports(1)
    server = connect(
        jvm(), directory / "connect", (port, broker.port),
        ConnectPasswords(database=ROLE_PASSWORD, rest=REST_PASSWORD), more,
    )  # fmt: skip
    server.start()
    try:
        server.wait()
        yield Worker(f"http://127.0.0.1:{port}", REST_PASSWORD)
    finally:
        server.stop()
