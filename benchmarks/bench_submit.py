"""Durable submissions per second of our api, of a plain Flask application on gunicorn's threads, and of pgbench with
the same INSERT, measured in turn.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import psutil
import psycopg

from benchmarks.figures import write
from stack.ports import free_ports
from stack.postgres import programs
from stack.servers import answers, die_with_parent
from tests.infra.postgres import PostgresServer, native_postgres
from tests.process import ROOT, Process
from tests.wait import until
from tidings.database.migrate import add_api_key

KEY = "benchmark-key"
CLIENTS = 64
# The row that the api stores, with a body of the same size.
PGBENCH = """\
INSERT INTO tidings.submissions (id, tenant, target, body, content_type, fingerprint, created_at) VALUES
  (uuidv7(), 'default', 'demo-images', convert_to(repeat('x', 913), 'UTF8'), 'application/json', sha256('x'), now());
"""


def load(port: int, seconds: float) -> dict[str, Any]:
    """The clients' figures, and the processor seconds of the server's processes per 1,000 answers."""
    command = [sys.executable, "-m", "benchmarks.load", str(port), str(seconds), str(CLIENTS), KEY]
    before = server_cpu_seconds(port)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=seconds + 60)
    seen = dict(json.loads(done.stdout))
    seen["server_cpu_seconds_per_1000"] = round(
        (server_cpu_seconds(port) - before) / max(1, seen["answered"]) * 1000, 3
    )
    return seen


def server_cpu_seconds(port: int) -> float:
    """The processor seconds of the server on `port` and of its workers, without Postgres."""
    address = f"127.0.0.1:{port}"
    total = 0.0
    for child in psutil.Process().children():
        if address in child.cmdline() or child.environ().get("API_LISTEN") == address:
            for process in (child, *child.children(recursive=True)):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def floor(url: str, directory: Path, seconds: int) -> float:
    """The commits per second of Postgres alone: the best of 8, 16 and 32 clients."""
    script = directory / "insert.sql"
    script.write_text(PGBENCH)
    script.chmod(0o644)
    best = 0.0
    for clients in (8, 16, 32):
        command = [
            str(programs() / "pgbench"),
            "-n",
            "-M",
            "prepared",
            "-f",
            str(script),
            "-c",
            str(clients),
            "-j",
            "2",
        ]
        done = subprocess.run(
            [*command, "-T", str(max(1, seconds // 3)), url], capture_output=True, text=True, check=True
        )
        found = re.search(r"tps = ([\d.]+)", done.stdout)
        assert found is not None, done.stdout
        best = max(best, float(found[1]))
    return round(best, 1)


def ours(url: str, directory: Path) -> tuple[Process, int]:
    port, internal = free_ports(2)
    environment = {
        "API_LISTEN": f"127.0.0.1:{port}",
        "API_INTERNAL_LISTEN": f"127.0.0.1:{internal}",
        "API_DATABASE_URL": url,
        "TIDINGS_INTERNAL_TOKEN": "x",
        "QSTASH_CURRENT_SIGNING_KEY": "x",
        "QSTASH_NEXT_SIGNING_KEY": "x",
        "TIDINGS_LOG_LEVEL": "WARNING",
    }
    return Process(
        "services.api", environment, directory / "api.log", ready_url=f"http://127.0.0.1:{port}/readyz"
    ), port


@contextmanager
def orderly(process: Process) -> Iterator[Process]:
    """Start the process, and terminate it at the end of the block. SIGKILL would leave granian's worker, a child,
    running.
    """
    try:
        yield process.start()
    finally:
        process.stop()


@contextmanager
def plain(url: str) -> Iterator[int]:
    [port] = free_ports(1)
    command = [sys.executable, "-m", "gunicorn", "-k", "gthread", "-w", "2", "--threads", "16", "--keep-alive", "60"]
    process = subprocess.Popen(
        [*command, "--log-level", "error", "-b", f"127.0.0.1:{port}", "benchmarks.plain_app:build()"],
        cwd=ROOT,
        env=dict(os.environ) | {"API_DATABASE_URL": url},
        preexec_fn=die_with_parent,  # noqa: PLW1509
    )
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), 30)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM tidings.submissions").fetchone()
    assert row is not None
    return int(row[0])


def run(postgres: PostgresServer, directory: Path, database: str, *, seconds: int, rounds: int) -> list[dict[str, Any]]:
    admin, url = postgres.url(database), postgres.url(database, role="tidings_api")
    with psycopg.connect(admin) as connection:
        add_api_key(connection, KEY, tenant="default", name="benchmark")
    process, port = ours(url, directory)
    found = []
    with orderly(process), plain(url) as plain_port:
        load(port, 1)
        load(plain_port, 1)
        for number in range(rounds):
            before = count(admin)
            first, second = (port, plain_port) if number % 2 else (plain_port, port)
            answers = {first: load(first, seconds), second: load(second, seconds)}
            stored = count(admin) - before
            line = {
                "round": number,
                "ours": answers[port],
                "gthread": answers[plain_port],
                "pgbench_per_second": floor(admin, directory, seconds),
                "load_average": round(os.getloadavg()[0], 1),
                "answered_but_not_stored": sum(answer["answered"] for answer in answers.values()) - stored,
            }
            print(json.dumps(line), flush=True)
            found.append(line)
    return found


@click.command()
@click.option("--seconds", default=6, show_default=True, help="The duration of each load.")
@click.option("--rounds", default=5, show_default=True)
def main(seconds: int, rounds: int) -> None:
    """Print one line per round and the medians of the ratios. Write results/submit.json."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        with native_postgres(directory) as postgres, postgres.database(template="template1") as database:
            postgres.migrate(database)
            found = run(postgres, directory, database, seconds=seconds, rounds=rounds)
    medians = {
        "ours_to_gthread": statistics.median(r["ours"]["per_second"] / r["gthread"]["per_second"] for r in found),
        "ours_to_pgbench": statistics.median(r["ours"]["per_second"] / r["pgbench_per_second"] for r in found),
        "cpu_ours_to_gthread": statistics.median(
            r["ours"]["server_cpu_seconds_per_1000"] / r["gthread"]["server_cpu_seconds_per_1000"] for r in found
        ),
        "p99_ours_to_gthread": statistics.median(r["ours"]["p99_ms"] / r["gthread"]["p99_ms"] for r in found),
    }
    print(json.dumps({name: round(value, 2) for name, value in medians.items()}))
    print(write("submit", {"seconds": seconds, "clients": CLIENTS, "medians": medians, "found": found}))


if __name__ == "__main__":
    main()
