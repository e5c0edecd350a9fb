"""The time that the system needed to recover from each fault, from the observations. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from tests.chaos.evidence import Evidence
from tests.chaos.ledger import MAIN_TOPIC
from tests.chaos.plan import Fault

# The processes whose readiness is measured for a fault that is not a process's own.
_TOUCHED = {
    "postgres": ("api", "api-2", "relay", "relay-2", "watcher", "reconciler"),
    "postgres backend": ("api", "api-2", "relay", "relay-2", "watcher", "reconciler"),
    "kafka": ("kafka", "dispatcher", "notifier", "notifier-2", "watcher"),
    "slot": ("watcher",),
    "changes": ("dispatcher",),
    "channel topic": ("notifier", "notifier-2"),
    "link to postgres": ("api-2", "relay-2"),
    "link to kafka": ("notifier-2",),
    "name server": ("api-2", "relay", "relay-2", "notifier-2"),
    "at all": (),
}


@dataclass(frozen=True)
class Recovery:
    """Seconds from the end of a fault. `ready`: until the affected processes were ready. `work`: until the completion
    of the probe, a submission that was sent at the end. None: not observed.
    """

    fault: Fault
    ready_seconds: float | None
    work_seconds: float | None


@dataclass(frozen=True)
class Summary:
    kind: str
    times: int
    ready_median: float | None
    ready_worst: float | None
    work_median: float | None
    work_worst: float | None


def recoveries(evidence: Evidence) -> list[Recovery]:
    return [Recovery(fault, _ready(fault, evidence), _work(fault, evidence)) for fault in evidence.faults]


def summaries(found: Iterable[Recovery]) -> list[Summary]:
    kinds: dict[str, list[Recovery]] = {}
    for one in found:
        kinds.setdefault(one.fault.kind, []).append(one)
    return [_summary(kind, kinds[kind]) for kind in sorted(kinds)]


def _summary(kind: str, found: list[Recovery]) -> Summary:
    ready = [one.ready_seconds for one in found if one.ready_seconds is not None]
    work = [one.work_seconds for one in found if one.work_seconds is not None]
    return Summary(
        kind,
        len(found),
        median(ready) if ready else None,
        max(ready, default=None),
        median(work) if work else None,
        max(work, default=None),
    )


def _ready(fault: Fault, evidence: Evidence) -> float | None:
    """The time until all affected processes were ready, unless another fault affected one of them before."""
    touched = _TOUCHED.get(fault.target, (fault.target,))
    seconds = [_process_ready(name, fault, evidence) for name in touched]
    known = [one for one in seconds if one is not None]
    return max(known, default=0.0) if len(known) == len(seconds) else None


def _process_ready(name: str, fault: Fault, evidence: Evidence) -> float | None:
    began, ended = evidence.began + fault.at_seconds, evidence.began + fault.ends_seconds
    others = [
        other.at_seconds
        for other in evidence.faults
        if other.at_seconds > fault.at_seconds and name in _TOUCHED.get(other.target, (other.target,))
    ]
    upto = evidence.began + min(others, default=float("inf"))
    samples = [s for s in evidence.samples if s.process == name and began <= s.at < upto]
    unready = [n for n, sample in enumerate(samples) if not sample.ready]
    if not unready:
        return 0.0
    if unready[-1] + 1 == len(samples):
        return None
    return max(0.0, samples[unready[-1] + 1].at - ended)


def _work(fault: Fault, evidence: Evidence) -> float | None:
    ended = evidence.began + fault.ends_seconds
    probes = {id_ for sent in evidence.sent if sent.probe == fault.number for id_ in sent.ids}
    moments = [e.at for e in evidence.completions if e.topic == MAIN_TOPIC and e.submission_id in probes]
    return min(moments) - ended if moments else None
