"""Each promise with the evidence of a run without faults, and its negative control: the smallest change that breaks it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.evidence import (
    Arrival,
    Completion,
    Evidence,
    Limit,
    Logged,
    Refused,
    Sample,
    Sent,
    Stored,
    Webhook,
)
from tests.chaos.ledger import PROMISES, broken
from tests.chaos.plan import Fault

MAIN = "tidings.completions"
UNKNOWN = "fate unknown: the relay died during the call"

WELL = Evidence(
    sent=(
        Sent("a", "chaos-images", 1.0, ("A",), channel="blue", webhook=True),
        Sent("b", "chaos-paid", 2.0, ("B", "B"), cancelled=200),
        Sent("c", "chaos-limited", 3.0, once=True),
        Sent("probe-0", "chaos-images", 4.0, ("P",), probe=0),
    ),
    stored=(
        Stored("A", "a", "succeeded", "ea", None, 5.0),
        Stored("B", "b", "cancelled", "eb", "cancelled", 6.0),
        Stored("P", "probe-0", "succeeded", "ep", None, 7.0),
    ),
    streamed={"A": 1, "B": 1, "P": 1},
    completions=(
        Completion(MAIN, "A", "ea", "succeeded", 5.1),
        Completion(f"{MAIN}.blue", "A", "ea", "succeeded", 5.1),
        Completion(MAIN, "B", "eb", "cancelled", 6.1),
        Completion(MAIN, "P", "ep", "succeeded", 7.1),
    ),
    logged=(
        Logged("m1", "A", "ACTIVE"),
        Logged("m1", "A", "ERROR", UNKNOWN),
        Logged("m1", "A", "ACTIVE"),
        Logged("m1", "A", "DELIVERED"),
        Logged("m2", "B", "ACTIVE"),
        Logged("m3", "d", "ACTIVE"),
        Logged("m3", "d", "DELIVERED"),
        Logged("m4", "P", "ACTIVE"),
        Logged("m4", "P", "DELIVERED"),
    ),
    calls={"a": 2, "b": 1, "probe-0": 1},
    direct=("d",),
    arrivals=(Arrival("d", "two", 1.0, 2.0),),
    webhooks=(Webhook("A", "ea"), Webhook("A", "ea")),
    limits=(Limit("two", parallelism=2, rate=1),),
    samples=(Sample("relay", 1.0, True, 100), Sample("kafka", 1.0, None, 10**12)),
    budgets={"relay": 100},
    remains={"live messages": 0},
    dead_letters=frozenset({b"no change"}),
    undecodable=frozenset({b"no change"}),
    faults=(Fault(0, "kill", "relay", 3.5, 0.0),),
    began=0.0,
)


def test_a_run_without_faults_breaks_no_promise() -> None:
    assert broken(WELL) == []


def row(number: int, **changed: Any) -> dict[str, Any]:
    rows = list(WELL.stored)
    rows[number] = replace(rows[number], **changed)
    return {"stored": tuple(rows)}


def sent(number: int, **changed: Any) -> dict[str, Any]:
    found = list(WELL.sent)
    found[number] = replace(found[number], **changed)
    return {"sent": tuple(found)}


def arrivals(*moments: tuple[float, float]) -> dict[str, Any]:
    found = tuple(Arrival(f"n{n}", "two", *moment) for n, moment in enumerate(moments))
    begun = tuple(Logged(arrival.key, arrival.key, "ACTIVE") for arrival in found)
    return {"arrivals": (*WELL.arrivals, *found), "logged": (*WELL.logged, *begun)}


def without(topic: str) -> dict[str, Any]:
    return {"completions": tuple(event for event in WELL.completions if event.topic != topic)}


BREAKS = [
    ("accepted is stored once", {"stored": WELL.stored[1:], "completions": WELL.completions[2:]}),
    ("accepted is stored once", sent(0, ids=("A", "Z"))),
    ("accepted is stored once", {"stored": (*WELL.stored, replace(WELL.stored[0], id="A2"))}),
    ("all are accepted", sent(2, once=False)),
    ("all are accepted", {"refused": (Refused("POST /v1/submissions", 500, "a fault"),)}),
    ("all end", row(0, outcome=None, event_id=None)),
    ("outcomes agree", sent(0, seen="failed")),
    ("outcomes agree", sent(0, cancelled=200)),
    ("outcomes agree", sent(1, cancelled=None)),
    ("outcomes agree", row(0, outcome="expired", reason="late")),
    ("outcomes agree", row(0, outcome="failed", reason="503")),
    ("outcomes agree", row(0, outcome="failed", reason="lost; the provider may have carried the call out")),
    ("one completion", without(MAIN)),
    ("one completion", {"completions": (*WELL.completions, WELL.completions[0])}),
    ("one completion", {"completions": (*WELL.completions, replace(WELL.completions[0], ce_id="other"))}),
    ("one completion", {"completions": (*WELL.completions, replace(WELL.completions[0], submission_id="Z"))}),
    ("one completion", row(0, outcome=None)),
    ("channels are told", without(f"{MAIN}.blue")),
    ("channels are told", {"completions": (*WELL.completions, WELL.completions[1])}),
    ("changes are told once", {"streamed": {"A": 1, "P": 1}}),
    ("changes are told once", {"streamed": {"A": 1, "B": 2, "P": 1}}),
    ("changes are told once", {"snapshots": {"A": 1}}),
    ("webhooks are told", {"webhooks": ()}),
    ("webhooks are told", {"webhooks": (*WELL.webhooks, Webhook("A", "other"))}),
    ("calls are on record", {"calls": {"a": 3, "b": 1, "probe-0": 1}}),
    ("calls are on record", {"calls": {"b": 1, "probe-0": 1}}),
    ("calls are on record", {"arrivals": (*WELL.arrivals, *WELL.arrivals)}),
    ("repeats are marked", {"logged": (WELL.logged[0], *WELL.logged[2:])}),
    ("repeats are marked", {"logged": (*WELL.logged, Logged("m9", "A", "ACTIVE"))}),
    ("paid calls are not repeated", {"calls": {"a": 2, "b": 2, "probe-0": 1}}),
    (
        "paid calls are not repeated",
        {"logged": (*WELL.logged, Logged("m2", "B", "ERROR", UNKNOWN), Logged("m2", "B", "ACTIVE"))},
    ),
    ("direct messages arrive", {"arrivals": ()}),
    ("parallelism holds", arrivals((3.0, 4.5), (3.0, 5.0), (4.0, 6.0))),
    ("rate holds", arrivals((5.0, 5.1), (5.2, 5.3), (5.4, 5.5))),
    ("nothing remains", {"remains": {"live messages": 1}}),
    ("dead letters are ours", {"dead_letters": frozenset({b"no change", b"a change"})}),
    ("dead letters are ours", {"dead_letters": frozenset()}),
    ("memory is within budget", {"budgets": {"relay": 99}}),
    ("recoveries are measured", sent(3, probe=None)),
    ("recoveries are measured", {"faults": (*WELL.faults, Fault(1, "kill", "relay", 3.5, 0.0))}),
    ("recoveries are measured", {"completions": WELL.completions[:3]}),
]


@pytest.mark.parametrize(("promise", "changed"), BREAKS)
def test_a_broken_promise_is_found(promise: str, changed: dict[str, Any]) -> None:
    found = {violation.promise for violation in broken(replace(WELL, **changed))}
    assert promise in found


def test_every_promise_has_a_negative_control() -> None:
    assert {promise for promise, _ in BREAKS} == set(PROMISES)


@pytest.mark.parametrize(
    "changed",
    [
        # A repeated event after a recorded nudge or snapshot.
        row(0, nudges=1) | {"completions": (*WELL.completions, WELL.completions[0], WELL.completions[1])},
        {
            "faults": (Fault(0, "drop", "slot", 3.0, 0.0),),
            "completions": (*WELL.completions, WELL.completions[0], WELL.completions[1]),
            # A result that only a snapshot contained has no webhook. An interrupted snapshot contained it twice.
            "streamed": {"B": 1},
            "snapshots": {"A": 2, "P": 1},
            "webhooks": (),
        },
        # The records of a deleted topic are deleted with it.
        {"faults": (Fault(0, "delete", "channel topic", 3.0, 0.0),)} | without(f"{MAIN}.blue"),
        # A call that costs money and whose answer was lost fails, and is not repeated.
        row(1, outcome="failed", reason="lost; the provider may have carried the call out")
        | sent(1, cancelled=409)
        | {"completions": (*WELL.completions[:2], replace(WELL.completions[2], outcome="failed"), WELL.completions[3])},
        # Consecutive calls are not concurrent. Two windows of a rate may adjoin.
        arrivals((2.0, 3.0), (2.5, 3.5), (3.0, 4.0)),
        sent(1, cancelled=409, seen="cancelled"),
    ],
)
def test_an_allowed_difference_breaks_no_promise(changed: dict[str, Any]) -> None:
    assert broken(replace(WELL, **changed)) == []
