"""The latency from a result's COMMIT to its completion event in `poll()`, in one run with our settings of Debezium and
with its defaults.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import psycopg
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from benchmarks.figures import percentile, write
from services.watcher.connector import Connector, configuration
from stack.ports import free_ports
from tests.infra.kafka import Worker, native_connect, native_kafka
from tests.infra.postgres import PostgresServer, native_postgres
from tests.process import ROOT, Process, started
from tests.wait import until
from tidings.contract.ids import new_submission_id
from tidings.contract.topics import COMPLETIONS

RATES = (10, 200)
# The defaults of Debezium and Kafka.
DEFAULTS = {
    "poll.interval.ms": "500",
    "max.batch.size": "2048",
    "max.queue.size": "8192",
    "producer.override.linger.ms": "5",
}
# In production, Debezium reads a submission's row before that of its result. The benchmark inserts both.
SUBMISSION = """
INSERT INTO tidings.submissions (id, tenant, target, body, content_type, fingerprint)
VALUES (%s, 'bench', 'bench', '{}', 'application/json', sha256('x'))
"""
RESULT = """
INSERT INTO tidings.results (submission_id, event_id, tenant, target, outcome, status_code, content_type, body, body_size,
  body_sha256, output, submitted_at)
VALUES (%s, %s, 'bench', 'bench', 'succeeded', 200, 'application/json', '{}', 2, 'x', '{"data": [{"url": "https://x/1.png"}]}', now())
"""


def measure(url: str, bootstrap: str, rows_per_second: int, rows: int) -> dict[str, Any]:
    """Insert `rows` at an even rate, one commit each. Return the milliseconds from each commit to its event."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False, fetch_max_wait_ms=500
    )
    parts = [TopicPartition(COMPLETIONS, number) for number in consumer.partitions_for_topic(COMPLETIONS)]
    consumer.assign(parts)
    # On a busy machine seek_to_end chose a position after the first events, and these seemed lost.
    for part, end in consumer.end_offsets(parts).items():
        consumer.seek(part, end)
    committed: dict[str, float] = {}
    seen: dict[str, float] = {}
    read = 0

    def insert() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            begin = time.perf_counter()
            for number in range(rows):
                time.sleep(max(0.0, begin + number / rows_per_second - time.perf_counter()))
                id_ = new_submission_id()
                connection.execute(SUBMISSION, (id_,))
                connection.execute(RESULT, (id_, uuid.uuid4()))
                committed[str(id_)] = time.perf_counter()

    thread = threading.Thread(target=insert)
    thread.start()
    deadline = time.monotonic() + rows / rows_per_second + 30
    while len(seen) < rows and time.monotonic() < deadline:
        for records in consumer.poll(timeout_ms=100).values():
            now = time.perf_counter()
            for record in records:
                read += 1
                seen.setdefault(record.key.decode(), now)
    thread.join()
    consumer.close()
    # An event may be read before the thread has noted the time of its commit. Its latency is then 0.
    delays = [max(0.0, seen[id_] - at) * 1000 for id_, at in committed.items() if id_ in seen]
    return {
        "rows_per_second": rows_per_second,
        "rows": rows,
        "lost": len(committed) - len(delays),
        "twice": read - len(seen),
        "load_average": round(os.getloadavg()[0], 1),
        "p50_ms": round(percentile(delays, 0.50), 1),
        "p99_ms": round(percentile(delays, 0.99), 1),
    }


def medians(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The medians of the rounds, by rate, and the ratios of the control's p50 and p99 to ours within each round."""
    lines = []
    for rate in RATES:
        ours, control = (
            [line for line in found if line["rows_per_second"] == rate and line["settings"] == which]
            for which in ("ours", "debezium defaults")
        )
        line: dict[str, Any] = {"rows_per_second": rate}
        for figure in ("p50_ms", "p99_ms"):
            line[f"ours_{figure}"] = statistics.median(one[figure] for one in ours)
            line[f"defaults_{figure}"] = statistics.median(one[figure] for one in control)
            ratios = [theirs[figure] / one[figure] for one, theirs in zip(ours, control, strict=True)]
            line[f"defaults_to_ours_{figure}"] = round(statistics.median(ratios), 1)
        lines.append(line)
    return lines


def setting(postgres: PostgresServer, worker: Worker, database: str, changed: Mapping[str, str]) -> None:
    """Start the connector with our settings, in which `changed` replaces some."""
    port = postgres.admin_url.rpartition(":")[2].partition("/")[0]
    values = {"HOST": "127.0.0.1", "PORT": port, "NAME": database}
    named = {f"TIDINGS_CDC_DATABASE_{name}": value for name, value in values.items()}
    connector = Connector(worker.url, "tidings", worker.password)
    connector.register(configuration(ROOT / "debezium" / "connector.json", named) | dict(changed))
    time.sleep(2)  # until the old task has ended: its state must not be read as the new task's
    until(lambda: (state := connector.state()) is not None and state.running, 60)


@click.command()
@click.option("--seconds", default=15, show_default=True, help="The duration of each rate.")
@click.option("--rounds", default=3, show_default=True, help="The number of rounds of our settings and the control.")
def main(seconds: int, rounds: int) -> None:
    """Print one line per measurement and the medians. Write results/cdc.json."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        with (  # noqa: SIM117
            native_postgres(directory) as postgres,
            native_kafka(directory) as broker,
            native_connect(directory, broker) as worker,
        ):
            with postgres.database(template="template1") as database:
                postgres.migrate(database)
                [port] = free_ports(1)
                notifier = Process(
                    "services.notifier",
                    {"TIDINGS_KAFKA": broker.bootstrap, "NOTIFIER_LISTEN": f"127.0.0.1:{port}"},
                    directory / "notifier.log",
                    ready_url=f"http://127.0.0.1:{port}/readyz",
                )
                with started(notifier):
                    for round_ in range(rounds):
                        for which, changed in (("ours", {}), ("debezium defaults", DEFAULTS)):
                            setting(postgres, worker, database, changed)
                            measure(postgres.url(database), broker.bootstrap, 50, 50)  # warm
                            for rate in RATES:
                                line = {"round": round_, "settings": which} | measure(
                                    postgres.url(database), broker.bootstrap, rate, rate * seconds
                                )
                                print(json.dumps(line), flush=True)
                                found.append(line)
                Connector(worker.url, "tidings", worker.password)._call("DELETE", "")  # noqa: SLF001  the slot must be inactive before its database is dropped
                with psycopg.connect(postgres.admin_url, autocommit=True) as admin:
                    until(
                        lambda: (
                            admin.execute("SELECT bool_and(NOT active) FROM pg_replication_slots").fetchone() == (True,)
                        ),
                        30,
                    )
                    admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    summary = medians(found)
    for line in summary:
        print(json.dumps(line))
    print(write("cdc", {"seconds": seconds, "medians": summary, "found": found}))


if __name__ == "__main__":
    main()
