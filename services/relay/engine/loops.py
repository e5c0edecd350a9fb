"""The background loops of a process. Each repeats its step, whatever error that raises. A loop that still ends is
detected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from structlog.stdlib import BoundLogger

from tidings.process.log import fault

FAULT_PAUSE_SECONDS = 1.0
# A cancellation may be lost (`asyncio.wait_for`, which the database's pool uses, discards one that arrives together
# with the result), so it is repeated.
CANCEL_AGAIN_SECONDS = 0.2

Step = Callable[[], Awaitable[object]]


# The longest wait for a cancelled loop.
END_SECONDS = 3.0


class LoopEndedError(Exception):
    """A loop ended unexpectedly. Without it the process only appears to work."""


class Loop:
    """Repeats `step` with a pause of `every` seconds, until `end`. An error, for example while the database is away, is
    logged, and followed by a pause of `again` seconds.
    """

    def __init__(
        self, name: str, step: Step, log: BoundLogger, *, every: float = 0.0, again: float | None = None
    ) -> None:
        self.name = name
        self._step = step
        self._log = log
        self._every = every
        self._again = max(every, FAULT_PAUSE_SECONDS) if again is None else again
        self._stopping = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self._run(), name=self.name)

    def stop(self) -> None:
        """Start no further round. The round in progress continues."""
        self._stopping.set()

    async def end(self, grace_seconds: float = 0.0) -> bool:
        """Let the round in progress finish for `grace_seconds`, then cancel it. Returns whether the loop ended."""
        self.stop()
        if self.task is None:
            return True
        await asyncio.wait([self.task], timeout=grace_seconds)
        return await _ended(self.task)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            pause = self._every
            try:
                await self._step()
            except Exception as error:  # noqa: BLE001  calls and messages depend on the loop
                self._log.error("loop_failed", loop=self.name, error=fault(error))
                pause = self._again
            if pause:
                await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


async def until_ended(stop: asyncio.Event, loops: Sequence[Loop]) -> str | None:
    """Wait for `stop`, or for a loop that ends by itself. Returns the name of that loop."""
    stopping = asyncio.create_task(stop.wait())
    tasks = {loop.task: loop.name for loop in loops if loop.task is not None}
    try:
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
    return next((name for task, name in tasks.items() if task in done), None)


async def end_all(loops: Sequence[Loop], log: BoundLogger) -> None:
    """End all loops concurrently."""
    for loop in loops:
        loop.stop()
    ends = await asyncio.gather(*(loop.end() for loop in loops))
    if left := [loop.name for loop, end in zip(loops, ends, strict=True) if not end]:
        log.error("loops_not_ended", loops=left)


async def _ended(task: asyncio.Task[None]) -> bool:
    clock = asyncio.get_running_loop()
    deadline = clock.time() + END_SECONDS
    while not task.done() and clock.time() < deadline:
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN_SECONDS)
    if task.done() and not task.cancelled():
        # The exception is retrieved, so that asyncio does not report it as never retrieved.
        task.exception()
    return task.done()


async def within(work: Awaitable[object], seconds: float) -> Exception | None:
    """Run `work` for at most `seconds`, and abandon it after that. Returns its error, or `TimeoutError`."""
    task = asyncio.ensure_future(_none(work))
    await asyncio.wait([task], timeout=seconds)
    if not task.done():
        task.cancel()
        return TimeoutError(f"not done within {seconds:g} s")
    if task.cancelled():
        return TimeoutError("cancelled")
    error = task.exception()
    if error is not None and not isinstance(error, Exception):
        raise error
    return error


async def _none(work: Awaitable[object]) -> None:
    await work
