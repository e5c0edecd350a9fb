"""The time that a call waits for the relay's own database is not the call's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from services.relay.store.time_limit import standing_still


async def never() -> None:
    await asyncio.Event().wait()


def run(story: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story

    asyncio.run(bounded())


async def passes(seconds: float) -> None:
    """Without a clock that a busy machine could outrun: the loop's timers are in order."""
    passed = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, passed.set_result, None)
    await passed


def test_a_limit_stands_still_within_the_block_and_goes_on_behind_it() -> None:
    passed = []

    async def call() -> None:
        async with asyncio.timeout(0.2) as limit:
            with standing_still(limit):
                await passes(0.5)
                passed.append("block")
            await never()

    with pytest.raises(TimeoutError):
        run(call())
    assert passed == ["block"]


def test_a_block_within_a_block_does_not_let_it_go_on_sooner() -> None:
    async def story() -> None:
        async with asyncio.timeout(0.2) as limit:
            with standing_still(limit):
                with standing_still(limit):
                    pass
                await passes(0.5)

    run(story())


def test_what_is_broken_off_within_the_block_ends() -> None:
    async def story() -> None:
        async def call() -> None:
            async with asyncio.timeout(20) as limit:
                with standing_still(limit):
                    await never()

        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(story())


def test_without_a_limit_nothing_stands_still() -> None:
    async def call() -> None:
        async with asyncio.timeout(0.05):
            with standing_still(None):
                await never()

    with pytest.raises(TimeoutError):
        run(call())
