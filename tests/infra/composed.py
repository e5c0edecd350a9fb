"""The environments of the servers in docker-compose.yml, which `--infra=docker` gives to containers of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from tests.infra.kafka import REST_PASSWORD
from tests.infra.postgres import ROLE_PASSWORD
from tests.process import ROOT

SERVICES: Mapping[str, Mapping[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def environment_of(service: str, own: Mapping[str, str]) -> dict[str, str]:
    """The environment that docker-compose.yml gives a service, but for what is `own`: its secrets, which have no value
    there, and on the host's network its addresses and ports.
    """
    composed = {name: str(value) for name, value in SERVICES[service]["environment"].items()}
    open_ = sorted(name for name, value in composed.items() if "${" in value and name not in own)
    assert open_ == [], f"the tests have no value for {open_} of {service} in docker-compose.yml"
    return composed | dict(own)


def kafka_environment(port: int, controller: int) -> dict[str, str]:
    return environment_of(
        "kafka",
        {
            "KAFKA_CONTROLLER_QUORUM_VOTERS": f"1@127.0.0.1:{controller}",
            "KAFKA_LISTENERS": f"INSIDE://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "KAFKA_ADVERTISED_LISTENERS": f"INSIDE://127.0.0.1:{port}",
        },
    )


def connect_environment(port: int, bootstrap: str) -> dict[str, str]:
    return environment_of(
        "connect",
        {
            "BOOTSTRAP_SERVERS": bootstrap,
            "HOST_NAME": "127.0.0.1",
            "REST_HOST_NAME": "127.0.0.1",
            "REST_PORT": str(port),
            "ADVERTISED_HOST_NAME": "127.0.0.1",
            "ADVERTISED_PORT": str(port),
            "TIDINGS_CDC_DATABASE_PASSWORD": ROLE_PASSWORD,
            "TIDINGS_CONNECT_PASSWORD": REST_PASSWORD,
        },
    )
