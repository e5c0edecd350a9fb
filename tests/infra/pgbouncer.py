"""Starts PgBouncer in transaction mode in front of a test's Postgres, if it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg
import pytest

from stack.ports import free_ports
from stack.postgres import UNPRIVILEGED_USER
from tests.wait import until

# Fewer server connections than the relay's own, so that each serves many clients, transaction by transaction.
POOL_SIZE = 3
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin")


@contextmanager
def pgbouncer(url: str, directory: Path) -> Iterator[str]:
    """`url` through PgBouncer. Skips the test where the program is not installed."""
    program = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), *_PLACES]))
    if program is None:
        pytest.skip("pgbouncer is not installed: the relay behind a pooler in transaction mode is NOT tested here")
    parts = urlsplit(url)
    [port] = free_ports(1)
    settings = directory / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={parts.hostname} port={parts.port} user={parts.username}"
        f" password={unquote(parts.password or '')}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = transaction\ndefault_pool_size = {POOL_SIZE}\nmax_client_conn = 200\n"
    )
    settings.chmod(0o644)
    for folder in (directory, *directory.parents[:2]):
        folder.chmod(0o755)
    as_user = ["-u", UNPRIVILEGED_USER] if os.geteuid() == 0 else []
    with (directory / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen([program, *as_user, str(settings)], stdout=log, stderr=log)
    pooled = urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}"))
    try:
        until(lambda: _answers(pooled))
        yield pooled
    finally:
        process.kill()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
