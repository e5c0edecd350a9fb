"""The rate of Postgres alone: pgbench with one INSERT per commit, and psycopg's COPY with 100 rows per commit."""

from __future__ import annotations

import re
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from stack.postgres import programs
from tidings.database.queries import load_queries

CLIENTS = (8, 16, 32)
ROWS = 100


def create(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(load_queries("benchmarks.relay")["create_floor"])


def count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(load_queries("benchmarks.relay")["floor_count"]).fetchone()
    assert row is not None
    return int(row[0])


def inserts_per_second(url: str, directory: Path, seconds: float) -> dict[str, float]:
    """The best rate of 8, 16 and 32 clients, each measured for a third of the time."""
    script = directory / "floor.sql"
    script.write_text(load_queries("benchmarks.relay")["floor_insert"])
    script.chmod(0o644)
    found: dict[str, float] = {}
    for clients in CLIENTS:
        command = [str(programs() / "pgbench"), "-n", "-M", "prepared", "-f", str(script), "-c", str(clients)]
        command += ["-j", "2", "-T", str(max(1, round(seconds / len(CLIENTS)))), url]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
        match = re.search(r"tps = ([\d.]+)", done.stdout)
        assert match is not None, done.stdout
        found[f"clients_{clients}"] = round(float(match[1]), 1)
    return found


def copies_per_second(url: str, seconds: float) -> float:
    """The rows per second over one connection, with 100 rows per commit."""
    statement = load_queries("benchmarks.relay")["floor_copy"]
    due = datetime.now(UTC) + timedelta(hours=1)
    body, sealed = b"x" * 1000, b"y" * 300
    rows = 0
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            with cursor.copy(statement) as copy:
                for number in range(rows, rows + ROWS):
                    copy.write_row((
                        f"msg_{number:040d}", "message", 2, "http://127.0.0.1:8080/call?id=publish-0&delay=0", "POST",
                        body, sealed, "benchmark", 3, 300_000, "127.0.0.1", due, due,
                    ))  # fmt: skip
            connection.commit()
            rows += ROWS
        return rows / (time.perf_counter() - began)
