"""From a result's COMMIT to its completion event in `poll()`: our settings of Debezium, then its defaults, in one run."""

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
# What Debezium and Kafka do when nobody sets anything.
DEFAULTS = {
    "poll.interval.ms": "500",
    "max.batch.size": "2048",
    "max.queue.size": "8192",
    "producer.override.linger.ms": "5",
}
# As in the real thing a submission's row went the same way before its result's, so Debezium has both to carry.
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
    """Insert `rows` at an even rate, each its own commit; milliseconds from commit to event, of all of them."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False, fetch_max_wait_ms=500
    )
    parts = [TopicPartition(COMPLETIONS, number) for number in consumer.partitions_for_topic(COMPLETIONS)]
    consumer.assign(parts)
    # Not seek_to_end, which on a crowded machine settled on an end that was past the first events: they seemed lost.
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
    # An event can be read before the thread has noted its commit: at the earliest at the same moment then.
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
    """Of the rounds, for each rate; the control's p50 and p99 over ours within each round."""
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
    """Have the connector run with our settings, less `changed`."""
    port = postgres.admin_url.rpartition(":")[2].partition("/")[0]
    values = {"HOST": "127.0.0.1", "PORT": port, "NAME": database}
    named = {f"TIDINGS_CDC_DATABASE_{name}": value for name, value in values.items()}
    connector = Connector(worker.url, "tidings", worker.password)
    connector.register(configuration(ROOT / "debezium" / "connector.json", named) | dict(changed))
    time.sleep(2)  # the old task ends first; its state would be taken for the new one's
    until(lambda: (state := connector.state()) is not None and state.running, 60)


@click.command()
@click.option("--seconds", default=15, show_default=True, help="How long each rate is held.")
@click.option("--rounds", default=3, show_default=True, help="Ours and the control in turn, so often.")
def main(seconds: int, rounds: int) -> None:
    """Print a line a measurement and the medians; write results/cdc.json."""
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
                Connector(worker.url, "tidings", worker.password)._call("DELETE", "")  # noqa: SLF001  so that the slot can go with its database
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
