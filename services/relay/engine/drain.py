"""The end of a process: no new calls start, calls in flight get the drain time, and the remaining claims are given
back.
"""

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

# A claim statement in progress is not cancelled before the drain time plus this, as it may be committed already.
CLAIM_SECONDS = 4.0
# The remaining claims are given back repeatedly until that succeeds, for this long after the drain time. The first try
# gets TRY_SECONDS, as its connection may be dead. Each further one gets twice the time, as the database may be slow.
FAREWELL_SECONDS = 9.0
TRY_SECONDS = 3.0
AGAIN_SECONDS = 0.2
# For the statement that releases the lease, and for a renewal in progress before it.
RELEASE_SECONDS = 1.0
# Cancelled calls end at once.
ABORT_SECONDS = 1.0
# Open requests get this time after the drain. They wait for a commit of milliseconds.
CLEANUP_SECONDS = 3.0
CLOSE_SECONDS = 2.0
# The sum of the above and of the time in which loops end, when each takes its longest. Then the watchdog ends the
# process.
END_SECONDS = 20.0


class Drain:
    """`run` is called once. The loops that serve calls, endings and requests continue during the drain; `others` end at
    its start.
    """

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
        """Wait up to the drain time for the calls in flight, then give the rest to the other processes."""
        deadline = _now() + self._seconds
        self._pump.stop()
        await asyncio.gather(self._claims.end(self._seconds + CLAIM_SECONDS), end_all(self._others, self._log))
        # Messages claimed but not called are given back now, so that other processes need not wait for the drain.
        await self._farewell(deadline)
        await _idle(self._busy, deadline)
        if left := await self._calls.abort_all(ABORT_SECONDS):
            self._log.warning("drain_incomplete", calls=left)
        last = deadline + FAREWELL_SECONDS
        if await self._farewell(last):
            # These calls have ended, but their endings are not committed yet.
            await _idle(lambda: self._writer.unwritten > 0, last)
            await self._release()
        else:
            detail = "claims may be left: when the lease lapses, they count as calls of unknown fate"
            self._log.error("drain_unreturned", detail=detail)

    def _busy(self) -> bool:
        return len(self._calls) > 0 or self._writer.unwritten > 0

    async def _farewell(self, deadline: float) -> bool:
        """Give claims back until none is left. Returns whether that was reached before the deadline."""
        patience = TRY_SECONDS
        while (left := deadline - _now()) > 0:
            if await self._gave_back(min(patience, left)):
                return True
            patience *= 2
            await asyncio.sleep(AGAIN_SECONDS)
        return False

    async def _gave_back(self, seconds: float) -> bool:
        """Reconcile once, and give back what was found. The next round confirms success by finding nothing."""
        looking = asyncio.ensure_future(self._leases.reconcile_once(astray_seconds=0.0))
        error = await within(looking, seconds)
        self._said("give_back", error)
        return error is None and looking.result() == 0

    async def _release(self) -> None:
        """Release the lease once no renewal can follow, which would undo the release."""
        error = await within(self._heartbeat.end(RELEASE_SECONDS), RELEASE_SECONDS)
        self._said("release", error or await within(self._leases.release(), RELEASE_SECONDS))

    def _said(self, step: str, error: Exception | None) -> None:
        if error is not None:
            self._log.error("drain_failed", step=step, error=fault(error))


async def _idle(busy: Callable[[], bool], deadline: float) -> None:
    while busy() and _now() < deadline:  # noqa: ASYNC110  once, at the end of the process
        await asyncio.sleep(0.05)


def _now() -> float:
    return asyncio.get_running_loop().time()
