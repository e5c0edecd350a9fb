"""The time for which a call waits for the relay's database does not count against its timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from services.relay.store.time_limit import Silence, extended, paused_limit


async def never() -> None:
    await asyncio.Event().wait()


def run(story: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story

    asyncio.run(bounded())


async def passes(seconds: float) -> None:
    """Without a real clock, which a busy machine could outrun: the loop's timers are in order."""
    passed = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, passed.set_result, None)
    await passed


def test_a_limit_pauses_within_the_block_and_continues_after_it() -> None:
    passed = []

    async def call() -> None:
        async with asyncio.timeout(0.2) as limit:
            with paused_limit(limit):
                await passes(0.5)
                passed.append("block")
            await never()

    with pytest.raises(TimeoutError):
        run(call())
    assert passed == ["block"]


def test_a_nested_block_does_not_continue_it_earlier() -> None:
    async def story() -> None:
        async with asyncio.timeout(0.2) as limit:
            with paused_limit(limit):
                with paused_limit(limit):
                    pass
                await passes(0.5)

    run(story())


def test_a_cancellation_within_the_block_ends_it() -> None:
    async def story() -> None:
        async def call() -> None:
            async with asyncio.timeout(20) as limit:
                with paused_limit(limit):
                    await never()

        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(story())


def test_without_a_limit_nothing_pauses() -> None:
    async def call() -> None:
        async with asyncio.timeout(0.05):
            with paused_limit(None):
                await never()

    with pytest.raises(TimeoutError):
        run(call())


class Clock:
    """The loop's clock, which the test sets."""

    now = 0.0


def test_only_long_statements_are_a_silence_and_concurrent_ones_are_one_silence() -> None:
    clock = Clock()
    silence = Silence(slow_seconds=1.0, monotonic=lambda: clock.now)
    with silence.statement():
        clock.now = 1.0
    assert silence.seconds == 0.0
    with silence.statement():
        clock.now = 3.0
        with silence.statement():
            assert silence.seconds == 2.0
            clock.now = 5.0
        assert silence.seconds == 4.0
        clock.now = 6.0
    assert silence.seconds == 5.0
    clock.now = 10.0
    assert silence.seconds == 5.0


def test_a_limit_is_extended_by_the_lost_time_and_no_more() -> None:
    lost = 0.0

    async def call() -> None:
        nonlocal lost
        async with asyncio.timeout(0.2) as limit:
            with extended(limit, lambda: lost):
                lost = 0.3
                await never()

    async def story() -> float:
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await call()
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(asyncio.wait_for(story(), 20)) >= 0.5


def test_after_the_block_the_limit_is_the_old_one_plus_the_time_lost_later() -> None:
    lost = 0.0

    async def story() -> None:
        nonlocal lost
        async with asyncio.timeout(20) as limit:
            before = limit.when()
            assert before is not None
            with extended(limit, lambda: lost):
                lost = 3.0
                with extended(limit, lambda: lost):
                    lost = 5.0
                await asyncio.sleep(0)
            assert limit.when() == before + 5.0
            with extended(None, lambda: lost):
                pass

    asyncio.run(story())
