"""Promises about calls: every call that a destination received is in the relay's log, and every repeated call is marked
there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from tests.chaos.evidence import Evidence, Logged

# The target whose calls cost money: `on_unknown = "fail"`.
PAID = "chaos-paid"
UNKNOWN = "fate unknown"


def calls_are_on_record(evidence: Evidence) -> Iterator[str]:
    """A claim is written before its socket opens, so a destination gets at most as many calls as there are claims."""
    began = Counter(row.label for row in evidence.logged if row.state == "ACTIVE")
    for key, labels, count in _called(evidence):
        claims = sum(began[label] for label in labels)
        if count > claims:
            yield f"{key} was called {count} times, and {claims} calls are on record"
    by_key = {row.key: row for row in evidence.stored}
    for key, row in by_key.items():
        if row.outcome == "succeeded" and not _count(evidence, key):
            yield f"{row.id} ({key}) succeeded, and nobody was called"


def repeats_are_marked(evidence: Evidence) -> Iterator[str]:
    """A message is claimed again only after a row with the reason: a failed attempt, one that was not sent, or one of
    unknown fate. When a submission has several messages, none follows one that was delivered.
    """
    for label, rows in _by_label(evidence).items():
        under_way: dict[str, bool] = {}
        delivered = False
        for row in rows:
            if row.state == "ACTIVE":
                if delivered:
                    yield f"{label} was called again after it was delivered"
                if under_way.get(row.message_id):
                    yield f"{label}: {row.message_id} was claimed again, and nothing says what became of the call before"
                under_way[row.message_id] = True
            elif row.state in {"ERROR", "RETRY", "FAILED", "DELIVERED"}:
                under_way[row.message_id] = False
                delivered = delivered or row.state == "DELIVERED"


def paid_calls_are_not_repeated(evidence: Evidence) -> Iterator[str]:
    """A call of unknown fate is not repeated when the target does not allow it."""
    paid = {row.id: row.key for row in evidence.stored if row.key in {s.key for s in evidence.sent if s.target == PAID}}
    rows_of = _by_label(evidence)
    for id_, key in paid.items():
        rows = rows_of.get(id_, [])
        answered = sum(row.state == "ERROR" and row.status is not None for row in rows)
        count = _count(evidence, key)
        if count > answered + 1:
            yield f"{id_} ({key}) was called {count} times, and {answered} of its calls are known to have failed"
        unknown = [n for n, row in enumerate(rows) if _says(row, UNKNOWN)]
        if unknown and any(row.state == "ACTIVE" for row in rows[unknown[0] :]):
            yield f"{id_} ({key}) was called again though the fate of a call was unknown"


def direct_messages_arrive(evidence: Evidence) -> Iterator[str]:
    """Each message that the relay accepted reaches its destination."""
    arrived = {arrival.key for arrival in evidence.arrivals}
    for key in evidence.direct:
        if key not in arrived:
            yield f"the message {key} was accepted and did not arrive"


def repeated(evidence: Evidence) -> int:
    """The number of calls that were repeated because the fate of one was unknown. Each is marked."""
    return sum(_says(row, UNKNOWN) and row.state == "ERROR" for row in evidence.logged)


def _says(row: Logged, text: str) -> bool:
    return text in (row.error or "")


def _called(evidence: Evidence) -> Iterator[tuple[str, set[str], int]]:
    """The key, the labels of its logged messages, and the number of its calls."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for row in evidence.stored:
        labels[row.key].add(row.id)
    arrived = Counter(arrival.key for arrival in evidence.arrivals)
    for key in sorted(set(evidence.calls) | set(arrived)):
        yield key, labels.get(key, set()) or {key}, evidence.calls.get(key, 0) + arrived[key]


def _count(evidence: Evidence, key: str) -> int:
    return evidence.calls.get(key, 0) + sum(arrival.key == key for arrival in evidence.arrivals)


def _by_label(evidence: Evidence) -> dict[str, Sequence[Logged]]:
    found: defaultdict[str, list[Logged]] = defaultdict(list)
    for row in evidence.logged:
        found[row.label].append(row)
    return dict(found)
