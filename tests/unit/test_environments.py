"""The environments of processes and servers, in docker-compose.yml, natively and in the tests: no name that nobody reads,
and the same settings everywhere but for those that are named here with their reason.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from stack.home import open_home
from stack.postgres import SETTINGS as POSTGRES
from stack.processes import environment_of as native
from tests.infra.composed import SERVICES, connect_environment, kafka_environment
from tests.unit.test_reference_tables import SETTINGS
from tidings.contract.targets import load_targets, variables

PROCESSES = ("api", "dispatcher", "notifier", "provider", "reconciler", "relay", "watcher")
# What a shell and the interpreter read.
SHELL = {"PATH", "HOME", "LANG", "PYTHONUNBUFFERED"}
# The image has it for all processes.
IMAGE = {"TIDINGS_LOG_FORMAT"}
# Natively alone. The relay ends sooner on a developer's machine than within compose's stop_grace_period; the stand-in has
# no log, whose level all processes are given.
UNREAD = {"provider": {"TIDINGS_LOG_LEVEL"}}
NATIVE = {"relay": {"RELAY_DRAIN_SECONDS"}} | UNREAD
# In compose alone: the stand-in's port is another one outside of the containers' network.
COMPOSED = {"provider": {"PROVIDER_PUBLIC_URL"}}
# Of one node that is reached at one address, and of an image that has a shell of its own.
POSTGRES_NATIVE = {
    "listen_addresses", "unix_socket_directories", "password_encryption",
    "max_wal_senders", "max_replication_slots", "shared_buffers",
}  # fmt: skip


def composed(process: str) -> dict[str, str]:
    return {name: str(value) for name, value in SERVICES[process]["environment"].items()}


@pytest.fixture
def given(tmp_path: Path) -> Mapping[str, str]:
    """A caller's environment in which every setting that compose passes on from its own has a value."""
    text = " ".join(value for process in PROCESSES for value in composed(process).values())
    return dict.fromkeys(re.findall(r"\$\{([A-Z_]+):-", text), "8") | {"TIDINGS_HOME": str(tmp_path)}


def read_by(process: str) -> set[str]:
    """The variables that a process reads."""
    if process == "provider":
        module = SERVICES[process]["command"][-1]
        parameters = importlib.import_module(f"{module}.__main__").main.params
        return {f"PROVIDER_{parameter.name.upper()}" for parameter in parameters}
    read = {str(field.validation_alias) for field in SETTINGS[process].model_fields.values()}
    if process == "dispatcher":
        return read.union(*(variables(target) for target in load_targets(Path("targets.toml")).values()))
    return read


@pytest.mark.parametrize("process", [*PROCESSES, "migrate", "connector"])
def test_compose_sets_no_variable_that_its_process_does_not_read(process: str) -> None:
    assert sorted(composed(process).keys() - read_by("watcher" if process == "connector" else process)) == []


@pytest.mark.parametrize("process", PROCESSES)
def test_the_native_stack_sets_no_variable_that_its_process_does_not_read(
    process: str, given: Mapping[str, str]
) -> None:
    environment = native(open_home(given), process, given)
    assert environment.keys() - read_by(process) - SHELL - IMAGE == UNREAD.get(process, set())


@pytest.mark.parametrize("process", PROCESSES)
def test_compose_and_the_native_stack_set_the_same_variables(process: str, given: Mapping[str, str]) -> None:
    environment = native(open_home(given), process, given)
    assert environment.keys() - SHELL - IMAGE - NATIVE.get(process, set()) == composed(process).keys() - COMPOSED.get(
        process, set()
    )


@pytest.mark.parametrize("process", PROCESSES)
def test_what_is_no_address_and_no_secret_has_one_value_in_compose_and_natively(process: str, tmp_path: Path) -> None:
    home = {"TIDINGS_HOME": str(tmp_path)}
    environment = native(open_home(home), process, home)
    values = {name: re.sub(r"^\$\{[A-Z_]+:-([^}]*)\}$", r"\1", value) for name, value in composed(process).items()}
    same = {
        name: value
        for name, value in values.items()
        if name in environment and re.fullmatch(r"[a-z0-9-]+", value) and not name.endswith(("_HOST", "_PORT"))
    }
    assert same == {name: environment[name] for name in same}


def test_postgres_has_the_settings_of_the_native_one_in_compose() -> None:
    options = dict(word.split("=", 1) for word in SERVICES["postgres"]["command"] if "=" in word)
    assert options == {name: value for name, value in POSTGRES.items() if name not in POSTGRES_NATIVE}


def test_the_tests_change_nothing_of_composes_servers_but_addresses_and_secrets() -> None:
    kafka, connect = kafka_environment(1, 2), connect_environment(3, "127.0.0.1:1")
    assert _changed(kafka, "kafka") == {
        "KAFKA_CONTROLLER_QUORUM_VOTERS", "KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS"
    }  # fmt: skip
    assert _changed(connect, "connect") == {
        "BOOTSTRAP_SERVERS", "TIDINGS_CDC_DATABASE_PASSWORD", "TIDINGS_CONNECT_PASSWORD",
        # Which compose leaves to the image, as its containers have addresses of their own.
        "HOST_NAME", "REST_HOST_NAME", "REST_PORT", "ADVERTISED_HOST_NAME", "ADVERTISED_PORT",
    }  # fmt: skip


def _changed(environment: Mapping[str, str], service: str) -> set[str]:
    before = composed(service)
    return {name for name in environment.keys() | before.keys() if environment.get(name) != before.get(name)}
