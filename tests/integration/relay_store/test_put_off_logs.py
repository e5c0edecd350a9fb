"""The log of a message that was put off has the start of each later attempt, also when its process died during it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.relay.ending import ending_of
from services.relay.message import Claimed
from services.relay.options import FlowControl
from services.relay.outcome.outcome import Answer
from services.relay.store.messages import Messages
from services.relay.store.processes import Processes
from tests.integration.relay_store.conftest import OTHER, Run, Stores, draft

FLOWS = [None, FlowControl("k", 1, None)]
LOG = "SELECT state, at, error FROM relay.events WHERE state <> 'CREATED' ORDER BY at, sequence"


async def due(stores: Stores) -> None:
    """Make all messages due at once, so that the test need not wait."""
    await stores.rows("UPDATE relay.messages SET due_at = now() RETURNING id")


async def put_off(stores: Stores, on_unknown: str, flow: FlowControl | None) -> datetime:
    """A message that was put off and is due again; return the time of its claim."""
    await stores.accept(draft(flow=flow, on_unknown=on_unknown))
    [first] = await stores.claim()
    answer = Answer(0, (), b"", error="no place for it", fate="not attempted", later_seconds=0.0)
    await stores.messages.finish([ending_of(first, answer, datetime.now(UTC))])
    await due(stores)
    return first.started_at


async def die(stores: Stores) -> Claimed:
    """Recover what another process had claimed before it died."""
    processes, messages = (
        Processes(stores.database, owner=OTHER),
        Messages(stores.database, stores.encryption, owner=OTHER),
    )
    await processes.renew(60)
    [claimed] = [*await messages.claim(1), *await messages.claim_keyed(1)]
    await processes.release()
    await stores.processes.renew(60)
    return claimed


async def log(stores: Stores) -> list[tuple[str, datetime | None]]:
    """The starts of its attempts, and the other states of its log."""
    return [(row["state"], row["at"] if row["state"] == "ACTIVE" else None) for row in await stores.rows(LOG)]


@pytest.mark.parametrize("flow", FLOWS)
def test_an_attempt_during_which_its_process_died_is_logged_and_so_is_the_next(
    run: Run, flow: FlowControl | None
) -> None:
    async def story(stores: Stores) -> None:
        first = await put_off(stores, "retry", flow)
        died = await die(stores)
        assert await stores.claims.expire(10) == 1
        expected = [("ACTIVE", first), ("ACTIVE", died.started_at), ("ERROR", None)]
        assert await log(stores) == expected
        [again] = await stores.claim()
        assert again.put_offs == 0
        await stores.finish([again])
        assert await log(stores) == [*expected, ("ACTIVE", again.started_at), ("DELIVERED", None)]
        view = await stores.views.get(again.id, 60)
        assert view is not None
        assert [one.started_at for one in view.attempts] == [died.started_at, again.started_at]

    run(story)


def test_a_last_attempt_during_which_its_process_died_is_logged(run: Run) -> None:
    async def story(stores: Stores) -> None:
        first = await put_off(stores, "fail", None)
        died = await die(stores)
        [taken] = await stores.claims.take_over(10)
        await stores.finish([taken], 0, final=True)
        states = [("ACTIVE", first), ("ACTIVE", died.started_at), ("ERROR", None), ("FAILED", None)]
        assert await log(stores) == states
        assert await stores.rows("SELECT FROM relay.put_offs") == []

    run(story)


def test_a_claim_that_is_returned_is_logged_and_is_not_an_attempt(run: Run) -> None:
    async def story(stores: Stores) -> None:
        first = await put_off(stores, "retry", None)
        [claimed] = await stores.claim()
        assert await stores.claims.give_back([claimed.claim]) == 1
        assert await log(stores) == [("ACTIVE", first), ("ACTIVE", claimed.started_at), ("ERROR", None)]
        await due(stores)
        [again] = await stores.claim()
        assert again.put_offs == 1

    run(story)


@pytest.mark.parametrize("on_unknown", ["retry", "fail"])
def test_an_attempt_that_began_before_the_first_day_of_the_log_ends_nevertheless(run: Run, on_unknown: str) -> None:
    async def story(stores: Stores) -> None:
        await put_off(stores, on_unknown, None)
        await die(stores)
        await stores.rows("UPDATE relay.messages SET started_at = now() - interval '40 days' RETURNING id")
        if on_unknown == "retry":
            assert await stores.claims.expire(10) == 1
        else:
            assert await stores.finish(await stores.claims.take_over(10), 0, final=True) == 1
        assert [state for state, _ in await log(stores)][:3] == ["ACTIVE", "ACTIVE", "ERROR"]

    run(story)
