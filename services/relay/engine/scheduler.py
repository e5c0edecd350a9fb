"""The loop that fires schedules within a second of their times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from structlog.stdlib import BoundLogger

from services.relay.store.schedules import Schedules
from tidings.process.log import fault

# Schedules of one transaction; more than these are due only after a standstill, and are next at once.
BATCH_MAX = 50
# Another process may have made a schedule that is due sooner than those known here.
IDLE_SECONDS = 0.5
# While another process has the due ones in hand they still look due.
PAUSE_SECONDS = 0.05
FAULT_PAUSE_SECONDS = 1.0


class Scheduler:
    """`run` until cancelled; `run_once` is its step. Several processes share the work."""

    def __init__(
        self, schedules: Schedules, *, now: Callable[[], datetime], fired: Callable[[], None], log: BoundLogger
    ) -> None:
        """`now` is aware; `fired` is called after messages were accepted: something may be due."""
        self._schedules = schedules
        self._now = now
        self._fired = fired
        self._log = log
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """A schedule was made or changed."""
        self._woken.set()

    async def run_once(self) -> int:
        """Fire what is due; how many schedules."""
        count = await self._schedules.fire_once(BATCH_MAX, self._now())
        if count:
            self._fired()
        return count

    async def run(self) -> None:
        """Fire until cancelled. The database may be away for a while."""
        while True:
            try:
                count = await self.run_once()
                if count < BATCH_MAX:
                    await self._sleep(await self._schedules.seconds_to_next(self._now()))
            except Exception as error:  # noqa: BLE001  no fault may end the loop that all schedules depend on
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
