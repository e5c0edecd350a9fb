"""The claims that a process holds, and which of them are lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from services.relay.engine.calls import Call, Calls
from services.relay.engine.recovery import lost_claims
from services.relay.store.claims import Difference

FIRST = ("msg_1", datetime(2026, 11, 25, tzinfo=UTC))
SECOND = ("msg_1", FIRST[1] + timedelta(seconds=1))


def told(story: Callable[[Calls], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story(Calls())

    asyncio.run(bounded())


async def held(call: Call) -> None:
    call.sending()
    await asyncio.Event().wait()


async def unsent(_call: Call) -> None:
    await asyncio.Event().wait()


async def settled(call: Call) -> None:
    call.sending()
    call.settled = True


async def ends(calls: Calls, *claims: tuple[str, datetime]) -> None:
    while any(claim in calls for claim in claims):  # noqa: ASYNC110  their tasks end by themselves
        await asyncio.sleep(0)


def test_a_claim_that_was_sent_and_has_no_ending_is_an_orphan_and_one_that_was_not_sent_is_not() -> None:
    async def story(calls: Calls) -> None:
        for claim, work in ((FIRST, held), (("b", FIRST[1]), unsent), (("c", FIRST[1]), settled)):
            calls.hold(claim, work)
        await asyncio.sleep(0)
        assert await calls.abort_all(10) == 3
        assert (len(calls), set(calls.orphans)) == (0, {FIRST})

    told(story)


def test_a_late_abort_of_an_earlier_claim_does_not_affect_the_later_one() -> None:
    async def story(calls: Calls) -> None:
        calls.hold(FIRST, settled)
        await ends(calls, FIRST)
        calls.hold(SECOND, held)
        await asyncio.sleep(0)
        calls.abort_claim(FIRST)
        await asyncio.sleep(0)
        assert SECOND in calls
        calls.abort("msg_1")
        await ends(calls, SECOND)

    told(story)


def test_a_claim_of_a_message_with_a_held_earlier_claim_aborts_that_one_and_still_counts_it() -> None:
    async def story(calls: Calls) -> None:
        calls.hold(FIRST, held)
        await asyncio.sleep(0)
        calls.hold(SECOND, held)
        assert set(calls.claims) == {FIRST, SECOND}
        await ends(calls, FIRST)
        assert (calls.claims, set(calls.orphans)) == ([SECOND], {FIRST})
        await calls.abort_all(10)

    told(story)


def test_the_same_claim_is_held_once() -> None:
    async def story(calls: Calls) -> None:
        calls.hold(FIRST, held)
        calls.hold(FIRST, settled)
        await asyncio.sleep(0)
        assert calls.claims == [FIRST]
        assert calls.orphans == frozenset()
        await calls.abort_all(10)

    told(story)


def test_rows_may_be_in_transit_since_the_oldest_round_began() -> None:
    now = 10.0
    calls = Calls(lambda: now)
    assert calls.claiming_since() == 10.0
    with calls.claiming():
        now = 20.0
        with calls.claiming():
            assert calls.claiming_since() == 10.0
    assert calls.claiming_since() == 20.0


def test_a_claim_is_astray_if_it_is_leased_here_old_enough_and_not_held() -> None:
    found = [
        Difference(("lost", FIRST[1]), leased=True, taken_over=False, age_seconds=8.0),
        Difference(("young", FIRST[1]), leased=True, taken_over=False, age_seconds=7.0),
        Difference(("held since", FIRST[1]), leased=True, taken_over=False, age_seconds=8.0),
        Difference(("cancelled", FIRST[1]), leased=False, taken_over=False, age_seconds=0.0),
    ]
    lost = lost_claims(found, lambda claim: claim[0] == "held since", 8.0)
    assert [one.claim[0] for one in lost] == ["lost"]
