"""Breaks off the calls of this process whose messages other processes cancelled."""

from __future__ import annotations

from services.relay.engine.calls import Calls
from services.relay.store.processes import Processes


class Cancellations:
    def __init__(self, processes: Processes, calls: Calls) -> None:
        self._processes = processes
        self._calls = calls

    async def run_once(self) -> None:
        for message_id in await self._processes.cancellations() if len(self._calls) else ():
            self._calls.abort(message_id)
