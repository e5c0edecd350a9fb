"""The promises: each is a check of the evidence of a run. Pure. `broken` runs them all. Their names appear in the
report.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tests.chaos import calls, limits
from tests.chaos.evidence import Evidence, Sent, Stored

MAIN_TOPIC = "tidings.completions"
ENDED = frozenset({"succeeded", "failed", "cancelled", "expired"})


@dataclass(frozen=True)
class Violation:
    promise: str
    what: str


Check = Callable[[Evidence], Iterator[str]]


def broken(evidence: Evidence) -> list[Violation]:
    return [Violation(promise, what) for promise, check in PROMISES.items() for what in check(evidence)]


def accepted_is_stored_once(evidence: Evidence) -> Iterator[str]:
    """Each answered id is a row, and each key that was repeated with its Idempotency-Key made one row."""
    rows = {row.id: row for row in evidence.stored}
    keys = Counter(row.key for row in evidence.stored)
    for sent in evidence.sent:
        for id_ in sorted(set(sent.ids)):
            if id_ not in rows or rows[id_].key != sent.key:
                yield f"{sent.key} was accepted as {id_}, which is not stored"
        if len(set(sent.ids)) > 1:
            yield f"{sent.key} was accepted as {sorted(set(sent.ids))}"
        if keys[sent.key] > 1:
            yield f"{sent.key} is stored {keys[sent.key]} times"


def all_are_accepted(evidence: Evidence) -> Iterator[str]:
    """Each submission that may be repeated is accepted in the end, and no answer rejects a valid request."""
    for sent in evidence.sent:
        if not sent.ids and not sent.once:
            yield f"{sent.key} was never accepted"
    for refused in evidence.refused:
        yield f"{refused.what}: {refused.status} {refused.text}"


def all_end(evidence: Evidence) -> Iterator[str]:
    for row in evidence.stored:
        if row.outcome not in ENDED:
            yield f"{row.id} ({row.key}) has no result"


def outcomes_agree(evidence: Evidence) -> Iterator[str]:
    """An outcome is one that was requested, and never changes after it was shown."""
    by_key = _stored(evidence)
    for sent in evidence.sent:
        row = by_key.get(sent.key)
        if row is not None and row.outcome is not None:
            yield from (f"{row.id} ({sent.key}): {fault}" for fault in _disagreements(sent, row))


def _disagreements(sent: Sent, row: Stored) -> Iterator[str]:
    if sent.seen is not None and sent.seen != row.outcome:
        yield f"it was shown as {sent.seen} and is {row.outcome}"
    if sent.cancelled == 200 and row.outcome != "cancelled":
        yield f"its cancel was accepted and it is {row.outcome}"
    if row.outcome == "cancelled" and sent.cancelled is None:
        yield "it is cancelled, which nobody asked for"
    if row.outcome == "expired" and not sent.expires:
        yield "it is expired, which nobody asked for"
    # A call that costs money is not repeated when its fate is unknown. It has then failed, with that reason.
    unsure = sent.target == calls.PAID and "carried" in (row.reason or "")
    if row.outcome == "failed" and not sent.faults and not unsure:
        yield f"it failed without the provider's fault: {row.reason}"


def one_completion(evidence: Evidence) -> Iterator[str]:
    """Each result has its event on the main topic, which has no other events. An event is repeated at most once for
    each change event of its row: the insert, the reconciler's nudges, and snapshots. An interrupted snapshot begins
    anew, so there may be more of them than dropped slots.
    """
    events = [event for event in evidence.completions if event.topic == MAIN_TOPIC]
    count = Counter(event.submission_id for event in events)
    rows = {row.id: row for row in evidence.stored}
    for row in evidence.stored:
        if row.outcome is not None and not count[row.id]:
            yield f"{row.id} ({row.key}) has a result and no completion"
        records = evidence.streamed.get(row.id, 0) + evidence.snapshots.get(row.id, 0) + row.nudges
        if count[row.id] > records:
            yield f"{row.id} ({row.key}) has {count[row.id]} completions of {records} records"
    for event in evidence.completions:
        found = rows.get(event.submission_id)
        if found is None or found.outcome is None:
            yield f"{event.topic} has an event of {event.submission_id}, which has no result"
        elif (event.ce_id, event.outcome) != (found.event_id, found.outcome):
            yield f"{event.topic} has {event.outcome} {event.ce_id} of {found.id}, whose result is another"


def channels_told(evidence: Evidence) -> Iterator[str]:
    """A channel's topic has the same events as the main topic has for that channel. The events of a deleted topic are
    deleted with it, and its tenant may be left out for some time, so none is missing then.
    """
    count = Counter((event.submission_id, event.topic) for event in evidence.completions)
    by_key = _stored(evidence)
    deleted = evidence.did("delete channel topic")
    for sent in evidence.sent:
        row = by_key.get(sent.key)
        if row is None or row.outcome is None:
            continue
        topic = f"{MAIN_TOPIC}.{sent.channel}"
        main, own = count[row.id, MAIN_TOPIC], count[row.id, topic]
        if own > main or (sent.channel is not None and own < main and not deleted):
            yield f"{row.id} ({sent.key}) is {own} times on {topic} and {main} times on the main topic"


def changes_told_once(evidence: Evidence) -> Iterator[str]:
    """Debezium sends each result once, for readers of committed records. Snapshots, as after a dropped slot, may repeat
    it.
    """
    dropped = evidence.did("drop slot")
    for row in evidence.stored:
        times = evidence.streamed.get(row.id, 0)
        if times > 1 or (row.outcome is not None and not times and not dropped):
            yield f"the result of {row.id} ({row.key}) is {times} times in the stream of changes"
        if evidence.snapshots.get(row.id) and not dropped:
            yield f"the result of {row.id} ({row.key}) was told by a snapshot, and no slot was dropped"


def webhooks_told(evidence: Evidence) -> Iterator[str]:
    """Each webhook is delivered at least once, always under the event's id. Results from a snapshot have no webhook."""
    told: defaultdict[str, set[str]] = defaultdict(set)
    for webhook in evidence.webhooks:
        told[webhook.submission_id].add(webhook.webhook_id)
    by_key = _stored(evidence)
    for sent in evidence.sent:
        row = by_key.get(sent.key)
        if row is None or row.event_id is None or not sent.webhook:
            continue
        if evidence.streamed.get(row.id) and not told[row.id]:
            yield f"{row.id} ({sent.key}) ended, and its webhook was not called"
        elif told[row.id] - {row.event_id}:
            yield f"{row.id} ({sent.key}) has webhooks {sorted(told[row.id])} and the event {row.event_id}"


def nothing_remains(evidence: Evidence) -> Iterator[str]:
    """The counts are zero when the system is at rest."""
    for name, count in evidence.remains.items():
        if count:
            yield f"{name}: {count}"


def dead_letters_are_ours(evidence: Evidence) -> Iterator[str]:
    """Exactly the undecodable records are on the dead-letter topic. Each may be there twice, so they are compared by
    value.
    """
    for value in sorted(evidence.dead_letters - evidence.undecodable):
        yield f"a change is among the dead letters: {value[:200]!r}"
    for value in sorted(evidence.undecodable - evidence.dead_letters):
        yield f"an undecodable record is not among the dead letters: {value[:200]!r}"


def memory_within_budget(evidence: Evidence) -> Iterator[str]:
    most: defaultdict[str, int] = defaultdict(int)
    for sample in evidence.samples:
        most[sample.process] = max(most[sample.process], sample.memory_bytes)
    for process, peak in most.items():
        budget = evidence.budgets.get(process)
        if budget is not None and peak > budget:
            yield f"{process} had {peak // 2**20} MiB, and may have {budget // 2**20}"


def recoveries_are_measured(evidence: Evidence) -> Iterator[str]:
    """The system works after each fault: the submission that was sent at the end of the fault was accepted and
    completed.
    """
    probes = {sent.probe: sent.ids for sent in evidence.sent if sent.probe is not None}
    told = {event.submission_id for event in evidence.completions if event.topic == MAIN_TOPIC}
    for fault in evidence.faults:
        if told.isdisjoint(probes.get(fault.number, ())):
            yield f"{fault.kind} at {fault.at_seconds:.1f} s: no completion of what was sent at its end"


def _stored(evidence: Evidence) -> dict[str, Stored]:
    return {row.key: row for row in evidence.stored}


PROMISES: Mapping[str, Check] = MappingProxyType(
    {
        "accepted is stored once": accepted_is_stored_once,
        "all are accepted": all_are_accepted,
        "all end": all_end,
        "outcomes agree": outcomes_agree,
        "one completion": one_completion,
        "channels are told": channels_told,
        "changes are told once": changes_told_once,
        "webhooks are told": webhooks_told,
        "calls are on record": calls.calls_are_on_record,
        "repeats are marked": calls.repeats_are_marked,
        "paid calls are not repeated": calls.paid_calls_are_not_repeated,
        "direct messages arrive": calls.direct_messages_arrive,
        "parallelism holds": limits.parallelism_holds,
        "rate holds": limits.rate_holds,
        "nothing remains": nothing_remains,
        "dead letters are ours": dead_letters_are_ours,
        "memory is within budget": memory_within_budget,
        "recoveries are measured": recoveries_are_measured,
    }
)
