"""The servers of docker-compose.yml, by testcontainers, on the host's network, where all have one address."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
import requests
from testcontainers.core.container import DockerContainer

from stack.ports import free_ports
from tests.infra.composed import SERVICES, connect_environment, environment_of, kafka_environment
from tests.infra.kafka import REST_PASSWORD, Broker, Worker
from tests.infra.postgres import SERVER_SETTINGS, PostgresServer
from tests.process import ROOT
from tests.wait import until

START_SECONDS = 90


@contextmanager
def _container(service: str, environment: Mapping[str, str], command: str | None = None) -> Iterator[Any]:
    composed = SERVICES[service]
    given = {"entrypoint": composed["entrypoint"]} if "entrypoint" in composed else {}
    container = DockerContainer(composed["image"]).with_kwargs(network_mode="host", **given)
    for mount in composed["volumes"]:
        source, target, *mode = mount.split(":")
        if source.startswith("./"):  # the others are data, which ends with its container
            container = container.with_volume_mapping(str(ROOT / source), target, *mode)
    for name, value in environment.items():
        container = container.with_env(name, value)
    if command is not None:
        container = container.with_command(command)
    with container as started:
        yield started


@contextmanager
def docker_postgres() -> Iterator[PostgresServer]:
    [port] = free_ports(1)
    password = secrets.token_hex(16)
    settings = {name: value for name, value in SERVER_SETTINGS.items() if name != "unix_socket_directories"}
    settings["port"] = str(port)
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    url = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"

    def answers() -> bool:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    # PGPORT: on its first start the image runs its scripts against that port.
    environment = environment_of("postgres", {"POSTGRES_PASSWORD": password, "PGPORT": str(port)})
    with _container("postgres", environment, f"postgres {options}") as container:
        until(answers, START_SECONDS)

        def restart() -> None:
            container.get_wrapped_container().restart()
            until(answers, START_SECONDS)

        yield PostgresServer(url, restart)


@contextmanager
def docker_kafka() -> Iterator[Broker]:
    port, controller = free_ports(2)

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with _container("kafka", kafka_environment(port, controller)):
        until(listens, START_SECONDS)
        yield Broker(port)


@contextmanager
def docker_connect(broker: Broker) -> Iterator[Worker]:
    [port] = free_ports(1)
    worker = Worker(f"http://127.0.0.1:{port}", REST_PASSWORD)

    def answers() -> bool:
        try:
            return requests.get(f"{worker.url}/connectors", auth=worker.login, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    with _container("connect", connect_environment(port, broker.bootstrap)):
        until(answers, START_SECONDS)
        yield worker
