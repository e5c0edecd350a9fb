"""One run: the load begins, the plan is executed, all faults are undone, the system comes to rest, and the evidence is
read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
import requests

from tests.chaos.evidence import Evidence, Limit, Sample
from tests.chaos.faults import Done, Injector
from tests.chaos.gather import Gatherer
from tests.chaos.load import DIRECT_LIMITS, Load, Places
from tests.chaos.observer import Observer
from tests.chaos.plan import Fault
from tests.chaos.system import LIMITED, System

# The memory limits of processes with their children. The relay's is the default of RELAY_MEMORY_BYTES_MAX. The others
# hold only their bounded batches and bodies, and use about 100 MiB when idle.
MIB = 2**20
BUDGETS = {
    "api": 512 * MIB, "api-2": 512 * MIB, "relay": 512 * MIB, "relay-2": 512 * MIB, "dispatcher": 256 * MIB,
    "notifier": 256 * MIB, "notifier-2": 256 * MIB, "watcher": 256 * MIB, "reconciler": 256 * MIB,
}  # fmt: skip
# A pause of the supervisor, a start, a lease, a round of the reconciler and a hanging transaction, added up.
REST_SECONDS = 300.0
RETRY_SECONDS = 90.0


@dataclass(frozen=True)
class Run:
    evidence: Evidence
    done: Sequence[Done]
    counts: dict[str, int]
    rest_seconds: float
    queries: dict[str, int]


def run(system: System, faults: Sequence[Fault], seconds: float, seed: int, told: Callable[[str], None]) -> Run:
    load, observer = Load(_places(system), seed), Observer(system)
    injector = Injector(system, seed, told, load.probe)
    gatherer = Gatherer(system)
    began = time.time()
    observer.start()
    load.start()
    injector.run(faults, began)
    _sleep_until(began + seconds)
    told(f"{time.time() - began:6.1f} s  the load ends: {dict(load.counts)}")
    load.stop(RETRY_SECONDS)
    stopped = time.time()
    remains = rest(gatherer, told)
    rest_seconds = time.time() - stopped
    observer.stop()
    told(f"{time.time() - began:6.1f} s  {'NOT quiet' if any(remains.values()) else 'quiet'}; reading what is left")
    evidence = _evidence(system, gatherer, load, injector, began, remains, observer.samples)
    server = system.naming.server
    queries = {str(mode): count for mode, count in server.counts.items()} if server else {}
    return Run(evidence, tuple(injector.done), dict(load.counts), rest_seconds, queries)


def _places(system: System) -> Places:
    secrets = system.stack.home.secrets
    return Places(
        (system.url("api"), system.url("api-2")),
        (system.url("relay"), system.url("relay-2")),
        system.receiver.url,
        secrets["api_key"],
        secrets["relay_token"],
    )


def _evidence(
    system: System,
    gatherer: Gatherer,
    load: Load,
    injector: Injector,
    began: float,
    remains: dict[str, int],
    samples: Sequence[Sample],
) -> Evidence:
    sent = load.sent
    streamed, snapshots = gatherer.changes()
    faults = (one.fault for one in injector.done if one.error is None)
    return Evidence(
        sent=sent,
        stored=gatherer.stored(),
        streamed=streamed,
        snapshots=snapshots,
        completions=gatherer.completions(),
        logged=gatherer.logged(),
        calls=gatherer.calls(one.key for one in sent),
        direct=tuple(load.direct),
        arrivals=tuple(system.receiver.arrivals),
        webhooks=tuple(system.receiver.webhooks),
        limits=(Limit("chaos-limited", parallelism=LIMITED), *DIRECT_LIMITS),
        samples=tuple(samples),
        budgets=BUDGETS,
        refused=tuple(load.refused),
        remains=remains,
        dead_letters=gatherer.dead_letters(),
        undecodable=injector.undecodable,
        faults=tuple(sorted(faults, key=lambda fault: fault.at_seconds)),
        began=began,
    )


def rest(gatherer: Gatherer, told: Callable[[str], None]) -> dict[str, int]:
    """Wait until all counts are zero twice in succession and each result has its event. Return the last counts."""
    deadline = time.monotonic() + REST_SECONDS
    quiet, said = 0, 0.0
    while True:
        found = _looked(gatherer)
        quiet = 0 if any(found.values()) else quiet + 1
        if quiet == 2 or time.monotonic() > deadline:
            return found
        if time.monotonic() - said > 10:
            said = time.monotonic()
            told(f"          not at rest: { ({name: count for name, count in found.items() if count}) }")
        time.sleep(1.0)


def _looked(gatherer: Gatherer) -> dict[str, int]:
    try:
        found = gatherer.remains()
        if any(found.values()):
            return found
        stored = gatherer.stored()
        events = {event.submission_id for event in gatherer.completions()}
        return found | {"results without a completion": sum(row.id not in events for row in stored)}
    except (psycopg.Error, requests.RequestException, AssertionError, OSError) as error:
        return {f"something does not answer ({type(error).__name__}: {str(error)[:100]})": 1}


def _sleep_until(moment: float) -> None:
    while (left := moment - time.time()) > 0:
        time.sleep(min(left, 0.5))
