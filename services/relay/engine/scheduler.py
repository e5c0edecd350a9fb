"""The loop that fires schedules within a second of their times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from structlog.stdlib import BoundLogger

from services.relay.store.schedules import Schedules
from tidings.process.log import fault

# Schedules of one transaction. More are due only after an outage, and the next transaction takes them at once.
BATCH_MAX = 50
# The poll interval. Another process may have made a schedule that is due earlier than those known here.
IDLE_SECONDS = 0.5
# Schedules that another process has locked still appear due. This is the pause before the next look.
PAUSE_SECONDS = 0.05
FAULT_PAUSE_SECONDS = 1.0


class Scheduler:
    """`run` repeats until cancelled; `run_once` is its step. Several processes share the work."""

    def __init__(
        self, schedules: Schedules, *, now: Callable[[], datetime], fired: Callable[[], None], log: BoundLogger
    ) -> None:
        """`now` is aware. `fired` is called after messages were accepted, as some may be due."""
        self._schedules = schedules
        self._now = now
        self._fired = fired
        self._log = log
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Must be called after a schedule was made or changed."""
        self._woken.set()

    async def run_once(self) -> int:
        """Fire the due schedules. Returns how many."""
        count = await self._schedules.fire_once(BATCH_MAX, self._now())
        if count:
            self._fired()
        return count

    async def run(self) -> None:
        """Fire until cancelled. Database outages are tolerated."""
        while True:
            try:
                count = await self.run_once()
                if count < BATCH_MAX:
                    await self._sleep(await self._schedules.seconds_to_next(self._now()))
            except Exception as error:  # noqa: BLE001  all schedules depend on the loop
                self._log.error("scheduler_failed", error=fault(error))
                await asyncio.sleep(FAULT_PAUSE_SECONDS)

    async def _sleep(self, seconds_to_next: float | None) -> None:
        seconds = IDLE_SECONDS if seconds_to_next is None else min(IDLE_SECONDS, max(PAUSE_SECONDS, seconds_to_next))
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()
