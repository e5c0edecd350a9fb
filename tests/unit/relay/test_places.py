"""Places that keys share: no key hoards them, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from services.relay.memory.places import NoPlaceError, Place, Places

PLACES = 20
# A fifth of the places.
ALONE = 4


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


async def taken(shares: Places, key: str) -> list[Place]:
    """All places that `key` gets without waiting."""
    found = []
    while True:
        try:
            found.append(await shares.take(key, 0))
        except NoPlaceError:
            return found


def test_one_key_has_a_fifth_and_many_leave_one_for_the_next() -> None:
    async def scenario() -> None:
        shares = Places(PLACES, 100)
        assert len(await taken(shares, "first")) == ALONE
        for number in range(8):
            assert await taken(shares, f"other-{number}")
        assert await taken(shares, "somebody new")

    run(scenario())


def test_a_released_place_goes_to_the_first_waiting_call() -> None:
    async def scenario() -> None:
        shares = Places(PLACES, 100)
        held = await taken(shares, "a")
        order: list[int] = []

        async def wait(number: int) -> None:
            async with shares.place("a", 10):
                order.append(number)

        waiting = [asyncio.create_task(wait(number)) for number in range(5)]
        await asyncio.sleep(0)
        # Other keys do not wait behind them.
        (await shares.take("b", 0)).release()
        assert order == []
        held[0].release()
        held[0].release()
        await asyncio.gather(*waiting)
        assert order == [0, 1, 2, 3, 4]

    run(scenario())


def test_too_many_waiting_calls_are_refused_by_key() -> None:
    async def scenario() -> None:
        shares = Places(PLACES, 20)
        await taken(shares, "a")
        await taken(shares, "b")
        waiting = [asyncio.create_task(shares.take("a", 10)) for _ in range(20)]
        await asyncio.sleep(0)
        assert sum(one.done() for one in waiting) == 20 - ALONE
        with pytest.raises(NoPlaceError, match="already"):
            await shares.take("a", 10)
        with pytest.raises(NoPlaceError, match="within 0 s"):
            await shares.take("b", 0)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(scenario())


@pytest.mark.parametrize("granted_first", [False, True])
def test_a_call_that_is_cancelled_while_waiting_loses_no_place(granted_first: bool) -> None:
    async def scenario() -> None:
        shares = Places(PLACES, 100)
        held = await taken(shares, "a")
        waiting = asyncio.create_task(shares.take("a", 10))
        await asyncio.sleep(0)
        for step in (held.pop().release, waiting.cancel)[:: 1 if granted_first else -1]:
            step()
        await asyncio.gather(waiting, return_exceptions=True)
        for place in held:
            place.release()
        assert len(await taken(shares, "a")) == ALONE

    run(scenario())


def test_a_waiting_key_is_served_when_others_release_places() -> None:
    async def scenario() -> None:
        shares = Places(PLACES, 100)
        others = [place for number in range(PLACES) for place in await taken(shares, f"other-{number}")]
        waiting = [asyncio.create_task(shares.take("late", 10)) for _ in range(ALONE)]
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        for place in others:
            place.release()
        await asyncio.gather(*waiting)

    run(scenario())
