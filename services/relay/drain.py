"""The end of a process: nothing begins, calls in flight get their time, the rest is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from structlog.stdlib import BoundLogger

from services.relay.calls import Calls
from services.relay.ending_writer import EndingWriter
from services.relay.leases import Leases
from services.relay.loops import Loop, end_all, within
from services.relay.pump import Pump
from tidings.log import fault

# A claim under way takes milliseconds; it is not broken off before this, as it may be committed already.
CLAIM_SECONDS = 2.0
# For each of the few statements that give back what is left; without a database they are left out.
FAREWELL_SECONDS = 2.0
# Calls that are broken off end at once.
ABORT_SECONDS = 1.0
# Requests under way get so long after the drain. What they wait for is a commit of milliseconds.
CLEANUP_SECONDS = 3.0
CLOSE_SECONDS = 2.0
# All of these together, and what loops take to end, when each takes its longest: then the watchdog ends the process.
END_SECONDS = 20.0


class Drain:
    """`run` once. The loops that carry calls, endings and requests go on meanwhile; `others` end at its begin."""

    def __init__(
        self,
        pump: Pump,
        leases: Leases,
        calls: Calls,
        writer: EndingWriter,
        claims: Loop,
        others: Sequence[Loop],
        log: BoundLogger,
        *,
        seconds: float,
    ) -> None:
        self._pump = pump
        self._leases = leases
        self._calls = calls
        self._writer = writer
        self._claims = claims
        self._others = others
        self._log = log
        self._seconds = seconds

    async def run(self) -> None:
        """Wait for the calls in flight, up to the drain time; give the rest to the other processes."""
        deadline = asyncio.get_running_loop().time() + self._seconds
        self._pump.stop()
        await asyncio.gather(self._claims.end(CLAIM_SECONDS), end_all(self._others, self._log))
        # What was claimed and not called is for others to call now, not after the drain.
        await self._farewell()
        while self._busy() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110  once, at the end
            await asyncio.sleep(0.05)
        if left := await self._calls.abort_all(ABORT_SECONDS):
            self._log.warning("drain_incomplete", calls=left)
        await self._farewell()
        self._said("release", await within(self._leases.release(), FAREWELL_SECONDS))

    def _busy(self) -> bool:
        return len(self._calls) > 0 or self._writer.unwritten > 0

    async def _farewell(self) -> None:
        self._said("give_back", await within(self._leases.reconcile_once(astray_seconds=0.0), FAREWELL_SECONDS))

    def _said(self, step: str, error: Exception | None) -> None:
        if error is not None:
            self._log.error("drain_failed", step=step, error=fault(error))
