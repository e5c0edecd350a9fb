"""The commands of documents that need only a Postgres."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psycopg
import requests

from stack.ports import free_ports
from tests.commands import run_by
from tests.infra.postgres import ROLE_PASSWORD, PostgresServer
from tests.process import ROOT
from tests.terminal import Terminal
from tests.wait import until


def terminal(directory: Path, replaced: dict[str, str]) -> Terminal:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(directory), "PYTHONPATH": str(ROOT), "TIDINGS_LOG_FORMAT": "json"}
    return Terminal(directory, environment, replaced)


def test_the_commands_for_an_existing_database(postgres: PostgresServer, tmp_path: Path) -> None:
    [commands] = run_by("docs/how-to/existing-postgres-and-kafka.md", "test_the_commands_for_an_existing_database")
    with postgres.database(template="template1") as name:
        # Roles belong to the server, and other tests log in with this password.
        replaced = {"postgresql://postgres:…@db:5432/tidings": postgres.url(name), "…": ROLE_PASSWORD}
        printed = terminal(tmp_path, replaced).run(commands)
        with psycopg.connect(postgres.url(name)) as connection:
            keys = connection.execute("SELECT tenant, name FROM tidings.api_keys").fetchall()
    assert keys == [("default", "first")]
    assert len(printed.split()[-1]) >= 32  # the key, which is shown once


def test_the_commands_for_the_relay_alone(postgres: PostgresServer, tmp_path: Path) -> None:
    start, tokens = run_by("docs/how-to/move-from-qstash.md", "test_the_commands_for_the_relay_alone")
    [port] = free_ports(1)
    with postgres.database(template="template1") as name:
        replaced = {
            "postgresql://relay:…@db/relay": postgres.url(name),
            "0.0.0.0:8080": f"127.0.0.1:{port}",
            # The packages are already installed.
            "pip install": ": pip install",
        }
        shell = terminal(tmp_path, replaced)
        with shell.running(start):
            until(lambda: _answers(f"http://127.0.0.1:{port}/readyz"), 30)
            created = shell.run(tokens)
        with psycopg.connect(postgres.url(name)) as connection:
            found = connection.execute(
                "SELECT name, writes, publishes_per_second, revoked_at IS NULL FROM relay.tokens ORDER BY 1"
            ).fetchall()
    assert found == [("billing", True, 50, True), ("dashboard", False, None, False)]
    assert created.splitlines()[2:] == ["revoked"]


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False
