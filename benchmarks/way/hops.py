"""Where the time of a submission goes: the moments that each process leaves behind, and the hops between them."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import psycopg
from kafka import KafkaConsumer
from kafka.structs import TopicPartition
from psycopg.rows import dict_row

from benchmarks.figures import percentile
from benchmarks.way.system import System
from tidings.contract.topics import COMPLETIONS, RESULTS, SUBMISSIONS
from tidings.database.queries import load_queries

# Moments in their order, epoch seconds: what a hop is called ends with the moment.
MOMENTS = ("sent", "committed", "changed", "accepted", "called", "ended", "stored", "result", "emitted", "seen")
HOPS = {
    "submit: request to row": ("sent", "committed"),
    "CDC: row to record": ("committed", "changed"),
    "dispatch: record to relay": ("changed", "accepted"),
    "claim: relay to provider": ("accepted", "called"),
    "answer: provider's end to relay's row": ("called", "ended"),
    "callback: relay to result row": ("ended", "stored"),
    "CDC: result to record": ("stored", "result"),
    "notify: record to event": ("result", "emitted"),
    "receive: event to consumer": ("emitted", "seen"),
}
Moments = dict[str, dict[str, float]]


def moments(
    system: System, sent: Mapping[str, Sequence[float]], seen: Mapping[str, float], delay_seconds: float
) -> Moments:
    """Of each submission that has all of them. The provider's own time is taken out of `called`."""
    ids = list(sent)
    found: Moments = {id_: {"sent": sent[id_][0], "seen": seen[id_]} for id_ in ids if id_ in seen}
    for row in _rows(system, ids):
        id_ = row.pop("id")
        if id_ in found:
            found[id_] |= {name: value for name, value in row.items() if value is not None}
    for topic, moment in ((SUBMISSIONS, "changed"), (RESULTS, "result"), (COMPLETIONS, "emitted")):
        for id_, at in _records(system.bootstrap, topic, set(ids)):
            if id_ in found:
                found[id_].setdefault(moment, at)
    for one in found.values():
        if "called" in one:
            one["called"] += delay_seconds
    return {id_: one for id_, one in found.items() if set(one) >= set(MOMENTS)}


def spent(found: Moments) -> dict[str, dict[str, float]]:
    """Milliseconds of each hop: mean, p50 and p99. A moment of another clock's resolution may make one negative."""
    said = {}
    for hop, (before, after) in HOPS.items():
        values = [(one[after] - one[before]) * 1000 for one in found.values()]
        said[hop] = {
            "mean_ms": round(statistics.fmean(values), 1),
            "p50_ms": round(percentile(values, 0.50), 1),
            "p99_ms": round(percentile(values, 0.99), 1),
        }
    return said


def _rows(system: System, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    queries = load_queries("benchmarks.way", "hops.sql")
    with psycopg.connect(system.database_url, row_factory=dict_row) as connection:
        yield from connection.execute(queries["rows"], {"ids": ids})
        yield from connection.execute(queries["relayed"], {"ids": ids, "upstream": "%/call?%"})


def _records(bootstrap: str, topic: str, ids: Collection[str]) -> Iterator[tuple[str, float]]:
    """The key and time of each record of `ids`; the time is the producer's, in epoch seconds."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False, fetch_max_wait_ms=100
    )
    try:
        parts = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(parts)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(parts)
        while any(consumer.position(part) < end for part, end in ends.items()):
            for records in consumer.poll(timeout_ms=500).values():
                for record in records:
                    if record.key is not None and (id_ := record.key.decode()) in ids:
                        yield id_, record.timestamp / 1000
    finally:
        consumer.close()
