"""A loop continues after errors, ends when it is told to, even when a cancellation is lost, and is reported when it
ends by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from services.relay.engine.loops import Loop, end_all, until_ended, within
from tidings.process import log


def told(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(bounded())


def loop(name: str, step: Callable[[], Awaitable[object]], *, again: float = 0.0) -> Loop:
    made = Loop(name, step, log.get("test"), again=again)
    made.start()
    return made


def test_an_error_does_not_end_a_loop() -> None:
    async def story() -> None:
        rounds = asyncio.Queue[int]()

        async def step() -> None:
            rounds.put_nowait(1)
            if rounds.qsize() < 3:
                raise OSError("away")
            await asyncio.Event().wait()

        running = loop("l", step)
        for _ in range(3):
            await rounds.get()
        assert await running.end()

    told(story)


def test_a_loop_that_ends_by_itself_is_reported() -> None:
    async def story() -> None:
        async def step() -> None:
            raise asyncio.CancelledError

        held = loop("held", asyncio.Event().wait)
        lost = loop("lost", step)
        assert await until_ended(asyncio.Event(), [held, lost]) == "lost"
        await end_all([held, lost], log.get("test"))

    told(story)


def test_a_loop_that_ends_during_the_stop_is_not_reported() -> None:
    async def story() -> None:
        stop = asyncio.Event()
        held = loop("held", asyncio.Event().wait)
        stop.set()
        assert await until_ended(stop, [held]) is None
        assert await held.end()

    told(story)


def test_a_round_in_progress_is_finished() -> None:
    async def story() -> None:
        begun, going, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def step() -> None:
            begun.set()
            await going.wait()
            finished.set()

        running = loop("l", step)
        await begun.wait()
        ending = asyncio.create_task(running.end(10))
        going.set()
        assert await ending
        assert finished.is_set()

    told(story)


def test_a_cancellation_that_is_lost_is_repeated() -> None:
    async def story() -> None:
        begun = asyncio.Event()
        lost = 0

        async def step() -> None:
            nonlocal lost
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

        running = Loop("l", step, log.get("test"))
        running.start()
        await begun.wait()
        # Not `stop`, so that the lost cancellation starts another round.
        assert running.task is not None
        running.task.cancel()
        assert await running.end()

    told(story)


def test_work_that_does_not_end_is_abandoned() -> None:
    async def story() -> None:
        assert isinstance(await within(asyncio.Event().wait(), 0.01), TimeoutError)

        async def faulty() -> None:
            raise OSError("away")

        assert isinstance(await within(faulty(), 10), OSError)
        assert await within(asyncio.sleep(0), 10) is None

    told(story)
