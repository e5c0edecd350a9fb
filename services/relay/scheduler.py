"""The loop that fires schedules within a second of their times."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from services.relay.store.schedules import Schedules


class Scheduler:
    """`run` until cancelled; `run_once` is its step."""

    def __init__(self, schedules: Schedules, now: Callable[[], datetime], fired: Callable[[], None]) -> None:
        """`fired` is called after messages were accepted: something may be due."""
        raise NotImplementedError

    def wake(self) -> None:
        """A schedule was made or changed."""
        raise NotImplementedError

    async def run_once(self) -> int:
        """Fire what is due; how many schedules."""
        raise NotImplementedError

    async def run(self) -> None:
        raise NotImplementedError
