"""Recovery of claims: a message that was never sent waits again without a counted attempt, one that was sent and lost
has an unknown fate, and no process recovers its own claims as those of a dead one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast
from uuid import UUID

from prometheus_client import CollectorRegistry

from services.relay.ending import ending_of
from services.relay.engine.calls import Calls
from services.relay.engine.claimer import Claimer
from services.relay.engine.database_clock import DatabaseClock
from services.relay.engine.ending_writer import EndingWriter
from services.relay.engine.held_claims import HeldClaims
from services.relay.engine.lease import Lease
from services.relay.engine.recovery import Recovery
from services.relay.message import Claimed
from services.relay.metrics import RelayMetrics
from services.relay.options import FlowControl
from services.relay.outcome.outcome import Answer
from services.relay.store.claims import UNKNOWN_MAX, Claims
from services.relay.store.messages import Messages
from services.relay.store.processes import Processes
from tests.integration.relay_store.conftest import Run, Stores, draft, later
from tidings.process import log
from tidings.process.telemetry import Telemetry

DEAD = UUID(int=2)
LEASE_SECONDS = 3.0


async def unknowns(stores: Stores) -> list[int]:
    return [row["unknown"] for row in await stores.rows("SELECT unknown FROM relay.messages ORDER BY id")]


async def claimed_by_the_dead(stores: Stores, count: int) -> None:
    """A process that claimed all due messages, and then released its lease."""
    processes = Processes(stores.database, owner=DEAD)
    await processes.renew(60)
    assert len(await Messages(stores.database, stores.encryption, owner=DEAD).claim(count)) == count
    await processes.release()


def test_the_differences_are_the_claims_of_one_side_alone(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(*(draft() for _ in range(3)))
        held, lost, cancelled = await stores.claim()
        await stores.messages.cancel([cancelled.id])
        found = await stores.claims.differences([held.claim, cancelled.claim])
        assert {(one.claim, one.leased, one.taken_over) for one in found} == {
            (lost.claim, True, False),
            (cancelled.claim, False, False),
        }
        assert all(one.age_seconds >= 0 for one in found)
        assert len(await stores.claims.differences([])) == 2

    run(story)


def test_a_message_that_was_never_sent_waits_again_and_no_attempt_is_counted(run: Run) -> None:
    async def story(stores: Stores) -> None:
        limit = FlowControl("k", 2, None)
        await stores.accept(*(draft(flow=limit, on_unknown="fail") for _ in range(2)), draft(queue="q"))
        claimed = await stores.claim()
        assert await stores.claims.give_back([one.claim for one in claimed]) == 3
        assert await unknowns(stores) == [0, 0, 0]
        again = await stores.claim()
        assert {one.id for one in again} == {one.id for one in claimed}
        assert [one.retried for one in again] == [0, 0, 0]
        # The earlier claims belong to no process any more.
        assert await stores.finish(claimed) == 0
        assert await stores.claims.give_back([one.claim for one in claimed]) == 0
        assert await stores.finish(again) == 3

    run(story)


def test_a_message_that_was_sent_and_lost_has_an_unknown_fate(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(draft(), draft(on_unknown="fail"))
        assert await stores.claims.disown([one.claim for one in await stores.claim()]) == 2
        assert await stores.claims.expire(10) == 1
        [failed] = await stores.claims.take_over(10)
        assert failed.on_unknown == "fail"
        assert await unknowns(stores) == [1, 1]

    run(story)


def test_a_verdict_applies_to_its_own_claim(run: Run) -> None:
    async def story(stores: Stores) -> None:
        [message_id] = await stores.accept(draft(retry_delay="0"))
        first = await stores.claim()
        assert await stores.finish(first, 503) == 1
        [second] = await stores.claim()
        # The first verdict is repeated, as its answer was lost, together with the second one.
        endings = [ending_of(one, Answer(200, (), b""), later()) for one in (*first, second)]
        assert [one.message.claim for one in await stores.messages.finish(endings)] == [second.claim]
        assert await stores.states() == {message_id: "delivered"}
        assert [attempt.number for attempt in await stores.events.attempts(message_id)] == [0, 1]

    run(story)


def test_a_process_recovers_claims_of_others_only_while_its_own_lease_is_valid(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(draft(), draft(on_unknown="fail"))
        claimed = await stores.claim()
        await stores.processes.release()
        assert await stores.claims.expire(10) == 0
        assert await stores.claims.take_over(10) == []
        # Nor when its lease is valid again, as these are its own claims.
        await stores.processes.renew(60)
        assert await stores.claims.expire(10) == 0
        assert await stores.claims.take_over(10) == []
        assert await stores.finish(claimed) == 2

    run(story)


def test_expired_leases_have_a_grace_and_released_ones_have_none(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(draft(), draft(on_unknown="fail"))
        await claimed_by_the_dead(stores, 2)
        await stores.rows("UPDATE relay.processes SET lease_until = now() - interval '1 h' RETURNING owner")
        await stores.processes.renew(60)
        assert await stores.claims.expire(10, lapsed=False) == 0
        assert await stores.claims.take_over(10, lapsed=False) == []
        await Processes(stores.database, owner=DEAD).release()
        assert await stores.claims.expire(10, lapsed=False) == 1
        assert len(await stores.claims.take_over(10, lapsed=False)) == 1

    run(story)


def test_a_process_that_renewed_its_lease_late_does_not_recover_another_that_could_not_renew(run: Run) -> None:
    """The database was down for less than a lease: that of one process expired, and that of the other is valid."""

    async def story(stores: Stores) -> None:
        await stores.accept(draft(), draft(on_unknown="fail"))
        await claimed_by_the_dead(stores, 2)
        recovery = sweeping(stores, lambda _, __: None, lease_seconds=LEASE_SECONDS)
        await Processes(stores.database, owner=DEAD).renew(3600)
        await beat(recovery, LEASE_SECONDS * 1.5)
        await asyncio.sleep(LEASE_SECONDS * 0.7)
        await lapse(stores, DEAD)
        assert await recovery.sweep_once() == 0
        await recovery.lease.renew_once()
        assert await recovery.sweep_once() == 0
        # The claims of a process that does not return are recovered all the same.
        deadline, swept_up = time.monotonic() + 60, 0
        while swept_up < 2 and time.monotonic() < deadline:
            await beat(recovery, LEASE_SECONDS / 5)
            swept_up += await recovery.sweep_once()
        assert swept_up == 2

    run(story)


def test_leases_that_expired_by_a_change_of_the_clock_have_a_grace(run: Run) -> None:
    """A failover to a server whose clock is ahead."""

    async def story(stores: Stores) -> None:
        await stores.accept(draft(), draft(on_unknown="fail"))
        await claimed_by_the_dead(stores, 2)
        recovery = sweeping(stores, lambda _, __: None, lease_seconds=LEASE_SECONDS)
        await Processes(stores.database, owner=DEAD).renew(3600)
        await beat(recovery, LEASE_SECONDS * 1.5)
        await lapse(stores, DEAD)
        await lapse(stores, stores.processes.owner)
        await recovery.lease.renew_once()
        assert await recovery.sweep_once() == 0

    run(story)


def test_a_recovery_that_is_executed_late_takes_no_claim(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(draft(), draft(on_unknown="fail"))
        await claimed_by_the_dead(stores, 2)
        await stores.processes.renew(60)
        await lapse(stores, DEAD)
        assert await stores.claims.expire(10, left_seconds=61) == 0
        assert await stores.claims.take_over(10, left_seconds=61) == []
        assert await stores.claims.expire(10, left_seconds=20) == 1
        assert len(await stores.claims.take_over(10, left_seconds=20)) == 1

    run(story)


async def lapse(stores: Stores, owner: UUID) -> None:
    await stores.rows(
        "UPDATE relay.processes SET lease_until = now() - interval '1 s' WHERE owner = %(owner)s RETURNING owner",
        owner=owner,
    )


async def beat(recovery: Recovery, seconds: float) -> None:
    """Renew the lease in time, for `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await recovery.lease.renew_once()
        await asyncio.sleep(LEASE_SECONDS / 10)


def test_a_claim_that_was_taken_over_is_distinguished_from_one_that_was_never_sent(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(draft(on_unknown="fail"))
        await claimed_by_the_dead(stores, 1)
        await stores.processes.renew(60)
        assert len(await stores.claims.take_over(10)) == 1
        [lost] = await stores.claims.differences([])
        assert (lost.leased, lost.taken_over) == (True, True)
        other = Claims(stores.database, stores.encryption, owner=UUID(int=3))
        assert await other.give_back([lost.claim]) == 0

    run(story)


async def died(stores: Stores, times: int) -> None:
    """`count` processes in succession die while they call the due messages. After each, the messages wait again."""
    for _ in range(times):
        await claimed_by_the_dead(stores, 1)
        await stores.processes.renew(60)
        assert await stores.claims.take_over(10) == []
        assert await stores.claims.expire(10) == 1


async def swept(stores: Stores) -> list[tuple[Claimed, Answer]]:
    """The messages that a recovery by this process fails."""
    failed: list[tuple[Claimed, Answer]] = []
    recovery = sweeping(stores, lambda message, answer: failed.append((message, answer)), lease_seconds=60)
    await recovery.lease.renew_once()
    assert await recovery.sweep_once() == 1
    return failed


def sweeping(stores: Stores, fail: Callable[[Claimed, Answer], None], *, lease_seconds: float) -> Recovery:
    telemetry = Telemetry(RelayMetrics(CollectorRegistry()), log.get("test"))
    held = HeldClaims(Calls(), cast("EndingWriter", None))
    return Recovery(
        Lease(stores.processes, DatabaseClock(), lease_seconds), stores.claims, held, Failing(fail), telemetry
    )


class Failing(Claimer):
    """A claimer that only fails messages."""

    def __init__(self, fail: Callable[[Claimed, Answer], None]) -> None:
        self._fail = fail

    def fail(self, message: Claimed, answer: Answer) -> None:
        self._fail(message, answer)

    def wake(self) -> None:
        pass


def test_a_message_during_whose_call_many_processes_die_fails_with_the_reason(run: Run) -> None:
    async def story(stores: Stores) -> None:
        [message_id] = await stores.accept(draft())
        await died(stores, UNKNOWN_MAX)
        # A claim that is not sent does not count, nor does one that was taken over.
        await stores.claim()
        [unsent] = await stores.claims.differences([])
        assert (unsent.leased, unsent.taken_over) == (True, False)
        assert await stores.claims.give_back([unsent.claim]) == 1
        await claimed_by_the_dead(stores, 1)
        [(message, answer)] = await swept(stores)
        [lost] = await stores.claims.differences([])
        assert (lost.leased, lost.taken_over) == (True, True)
        assert answer.fate == "unknown"
        assert f"died during the call, as it did {UNKNOWN_MAX} times before" in (answer.error or "")
        await stores.messages.finish([ending_of(message, answer, later(), final=True)])
        assert await stores.states() == {message_id: "failed"}

    run(story)


def test_an_answer_in_between_resets_the_count(run: Run) -> None:
    async def story(stores: Stores) -> None:
        await stores.accept(draft(retry_delay="0"))
        await died(stores, UNKNOWN_MAX)
        assert await stores.finish(await stores.claim(), 503) == 1
        assert await unknowns(stores) == [0]
        await died(stores, 1)

    run(story)
