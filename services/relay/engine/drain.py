"""The end of a process: nothing begins, calls in flight get their time, the rest is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from structlog.stdlib import BoundLogger

from services.relay.engine.calls import Calls
from services.relay.engine.ending_writer import EndingWriter
from services.relay.engine.leases import Leases
from services.relay.engine.loops import Loop, end_all, within
from services.relay.engine.pump import Pump
from tidings.process.log import fault

# A claim under way is not broken off before the drain time and this have passed, as it may be committed already.
CLAIM_SECONDS = 4.0
# What is left is given back until that succeeds; after the drain time, for so long. The first try gets TRY_SECONDS, as its
# connection may be dead, and each further one twice as long, as the database may be slow.
FAREWELL_SECONDS = 9.0
TRY_SECONDS = 3.0
AGAIN_SECONDS = 0.2
# For the statement that releases the lease, and before it for a beat under way.
RELEASE_SECONDS = 1.0
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
        heartbeat: Loop,
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
        self._heartbeat = heartbeat
        self._others = others
        self._log = log
        self._seconds = seconds

    async def run(self) -> None:
        """Wait for the calls in flight, up to the drain time; give the rest to the other processes."""
        deadline = _now() + self._seconds
        self._pump.stop()
        await asyncio.gather(self._claims.end(self._seconds + CLAIM_SECONDS), end_all(self._others, self._log))
        # What was claimed and not called is for others to call now, not after the drain.
        await self._farewell(deadline)
        await _idle(self._busy, deadline)
        if left := await self._calls.abort_all(ABORT_SECONDS):
            self._log.warning("drain_incomplete", calls=left)
        last = deadline + FAREWELL_SECONDS
        if await self._farewell(last):
            # Calls that ended, and whose endings are on their way.
            await _idle(lambda: self._writer.unwritten > 0, last)
            await self._release()
        else:
            detail = "claims may be left: when the lease lapses, they count as calls of unknown fate"
            self._log.error("drain_unreturned", detail=detail)

    def _busy(self) -> bool:
        return len(self._calls) > 0 or self._writer.unwritten > 0

    async def _farewell(self, deadline: float) -> bool:
        """Give back until nothing is left to be given back; whether that was reached."""
        patience = TRY_SECONDS
        while (left := deadline - _now()) > 0:
            if await self._gave_back(min(patience, left)):
                return True
            patience *= 2
            await asyncio.sleep(AGAIN_SECONDS)
        return False

    async def _gave_back(self, seconds: float) -> bool:
        """One look, and what it found put right. Its success is seen by the next look, which finds nothing."""
        looking = asyncio.ensure_future(self._leases.reconcile_once(astray_seconds=0.0))
        error = await within(looking, seconds)
        self._said("give_back", error)
        return error is None and looking.result() == 0

    async def _release(self) -> None:
        """Not while a beat may come after: it would renew what was released."""
        error = await within(self._heartbeat.end(RELEASE_SECONDS), RELEASE_SECONDS)
        self._said("release", error or await within(self._leases.release(), RELEASE_SECONDS))

    def _said(self, step: str, error: Exception | None) -> None:
        if error is not None:
            self._log.error("drain_failed", step=step, error=fault(error))


async def _idle(busy: Callable[[], bool], deadline: float) -> None:
    while busy() and _now() < deadline:  # noqa: ASYNC110  once, at the end
        await asyncio.sleep(0.05)


def _now() -> float:
    return asyncio.get_running_loop().time()
