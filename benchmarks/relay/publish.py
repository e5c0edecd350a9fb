"""Publish: the messages per second, singly and in batches of 100, and the rate at which Postgres alone stores such
rows.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys

import requests

from benchmarks.relay import floor, ours
from benchmarks.relay.contest import Contestant, Line, VoidError, ratio, table
from benchmarks.relay.ground import Ground
from tests.process import ROOT

CLIENTS = 64
WARM_SECONDS = 1.0
FIGURES = ("messages_per_second", "p50_ms", "p99_ms", "cpu_system_seconds", "cpu_postgres_seconds")
NAMES = ("relay-single", "pgbench-insert", "relay-batch", "psycopg-copy")


def contestants(ground: Ground) -> list[Contestant]:
    return [
        Contestant("relay-single", lambda: _ours(ground, "single", CLIENTS, 1)),
        Contestant("pgbench-insert", lambda: _inserts(ground)),
        Contestant("relay-batch", lambda: _ours(ground, "batch", ours.BATCHES.senders, ours.BATCHES.batch)),
        Contestant("psycopg-copy", lambda: _copies(ground)),
    ]


def report(found: list[Line], _ground: Ground) -> tuple[str, dict[str, object]]:
    aims = {
        "single_to_pgbench": ratio(found, "messages_per_second", "relay-single", "pgbench-insert"),
        "batch_to_copy": ratio(found, "messages_per_second", "relay-batch", "psycopg-copy"),
    }
    return table(found, NAMES, FIGURES), dict(aims)


def _ours(ground: Ground, kind: str, clients: int, each: int) -> Line:
    label = f"p{secrets.token_hex(4)}"
    with ours.relay(ground) as relay:
        _load(relay.port, WARM_SECONDS, clients, kind, f"{label}-warm")
        meter = ground.meter([relay.pid])
        seen = _load(relay.port, ground.scale.publish_seconds, clients, kind, label)
        used = meter.read()
        stored = _cancelled(relay, label)
    if seen["faults"] or stored != seen["answered"] * each:
        raise VoidError(f"answered {seen['answered'] * each:g}, stored {stored}, faults {seen['faults']:g}")
    return {
        "messages_per_second": round(seen["per_second"] * each, 1),
        "p50_ms": seen["p50_ms"],
        "p99_ms": seen["p99_ms"],
        "stored": stored,
    } | used


def _load(port: int, seconds: float, clients: int, kind: str, label: str) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.relay.publish_load",
        str(port),
        str(seconds),
        str(clients),
        kind,
        label,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=seconds + 60)
    return dict(json.loads(done.stdout))


def _cancelled(relay: ours.Ours, label: str) -> int:
    """Cancel the messages of this label and return their number. One request cancels a bounded part of them."""
    total = 0
    headers = {"Authorization": f"Bearer {ours.TOKEN}"}
    while True:
        answer = requests.delete(f"{relay.url}/v2/messages", params={"label": label}, headers=headers, timeout=120)
        answer.raise_for_status()
        cancelled = int(answer.json()["cancelled"])
        total += cancelled
        if cancelled == 0:
            return total


def _inserts(ground: Ground) -> Line:
    with ground.postgres.database(template="template1") as database:
        url = ground.postgres.url(database)
        floor.create(url)
        meter = ground.meter([])
        found = floor.inserts_per_second(url, ground.directory, ground.scale.publish_seconds)
        return {"messages_per_second": max(found.values()), "stored": floor.count(url)} | found | meter.read()


def _copies(ground: Ground) -> Line:
    with ground.postgres.database(template="template1") as database:
        url = ground.postgres.url(database)
        floor.create(url)
        meter = ground.meter([])
        found = floor.copies_per_second(url, ground.scale.publish_seconds)
        return {"messages_per_second": round(found, 1), "stored": floor.count(url)} | meter.read()
