"""The same servers from the official images, by testcontainers, on the host's network, where all have one address."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import requests
from testcontainers.core.container import DockerContainer

from stack.ports import free_ports
from tests.infra.kafka import Broker, Worker
from tests.infra.postgres import ROLE_PASSWORD, SERVER_SETTINGS, PostgresServer
from tests.wait import until

START_SECONDS = 90


@contextmanager
def _container(image: str, environment: dict[str, str], command: str | None = None) -> Iterator[Any]:
    container = DockerContainer(image).with_kwargs(network_mode="host")
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
    environment = {"POSTGRES_PASSWORD": password, "PGPORT": str(port)}
    with _container("postgres:18", environment, f"postgres {options}") as container:
        until(answers, START_SECONDS)

        def restart() -> None:
            container.get_wrapped_container().restart()
            until(answers, START_SECONDS)

        yield PostgresServer(url, restart)


@contextmanager
def docker_kafka() -> Iterator[Broker]:
    port, controller = free_ports(2)
    environment = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": f"1@127.0.0.1:{controller}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_LOG_DIRS": "/var/lib/kafka/data",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with _container("apache/kafka:4.3.0", environment):
        until(listens, START_SECONDS)
        yield Broker(port)


@contextmanager
def docker_connect(broker: Broker) -> Iterator[Worker]:
    [port] = free_ports(1)
    environment = {
        "BOOTSTRAP_SERVERS": broker.bootstrap,
        "GROUP_ID": "tidings-connect",
        "CONFIG_STORAGE_TOPIC": "tidings.connect.configs",
        "OFFSET_STORAGE_TOPIC": "tidings.connect.offsets",
        "STATUS_STORAGE_TOPIC": "tidings.connect.status",
        "HOST_NAME": "127.0.0.1",
        "REST_HOST_NAME": "127.0.0.1",
        "REST_PORT": str(port),
        "ADVERTISED_HOST_NAME": "127.0.0.1",
        "ADVERTISED_PORT": str(port),
        "OFFSET_FLUSH_INTERVAL_MS": "1000",
        "CONNECT_EXACTLY_ONCE_SOURCE_SUPPORT": "enabled",
        "CONNECT_SCHEDULED_REBALANCE_MAX_DELAY_MS": "1000",
        "CONNECT_CONNECTOR_CLIENT_CONFIG_OVERRIDE_POLICY": "All",
        "CONNECT_TOPIC_CREATION_ENABLE": "true",
        "CONNECT_CONFIG_PROVIDERS": "env",
        "CONNECT_CONFIG_PROVIDERS_ENV_CLASS": "org.apache.kafka.common.config.provider.EnvVarConfigProvider",
        "CONNECT_CONFIG_PROVIDERS_ENV_PARAM_ALLOWLIST_PATTERN": "TIDINGS_CDC_DATABASE_PASSWORD",
        "TIDINGS_CDC_DATABASE_PASSWORD": ROLE_PASSWORD,
    }
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return requests.get(f"{url}/connectors", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    with _container("quay.io/debezium/connect:3.6", environment):
        until(answers, START_SECONDS)
        yield Worker(url)
