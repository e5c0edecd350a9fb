"""The end of a process: no new calls start, calls in flight get the drain time, and the remaining claims are given
back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from structlog.stdlib import BoundLogger

from services.relay.engine.claimer import Claimer
from services.relay.engine.loops import Loop, end_all, within
from services.relay.engine.recovery import Recovery
from tidings.process.log import fault

# A claim statement in progress is not cancelled before the drain time plus this, as it may be committed already.
CLAIM_SECONDS = 4.0
# The remaining claims are given back repeatedly until that succeeds, for this long after the drain time. The first try
# gets TRY_SECONDS, as its connection may be dead. Each further one gets twice the time, as the database may be slow.
GIVE_BACK_SECONDS = 9.0
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


@dataclass(frozen=True)
class DrainLoops:
    """The loops that end at different times; the others continue until the end."""

    claims: Loop
    heartbeat: Loop
    others: Sequence[Loop]


class Drain:
    """`run` is called once. The loops that serve calls, endings and requests continue during the drain; the others of
    `DrainLoops` end at its start.
    """

    def __init__(
        self,
        claimer: Claimer,
        recovery: Recovery,
        loops: DrainLoops,
        log: BoundLogger,
        *,
        seconds: float,
    ) -> None:
        self._claimer = claimer
        self._recovery = recovery
        self._held = recovery.held
        self._loops = loops
        self._log = log
        self._seconds = seconds

    async def run(self) -> None:
        """Wait up to the drain time for the calls in flight, then give the rest to the other processes."""
        deadline = _now() + self._seconds
        self._claimer.stop()
        await asyncio.gather(
            self._loops.claims.end(self._seconds + CLAIM_SECONDS), end_all(self._loops.others, self._log)
        )
        # Messages claimed but not called are given back now, so that other processes need not wait for the drain.
        await self._give_back_all(deadline)
        await _idle(lambda: self._held.any, deadline)
        if left := await self._held.calls.abort_all(ABORT_SECONDS):
            self._log.warning("drain_incomplete", calls=left)
        last = deadline + GIVE_BACK_SECONDS
        if await self._give_back_all(last):
            # These calls have ended, but their endings are not committed yet.
            await _idle(lambda: self._held.writer.unwritten > 0, last)
            await self._release()
        else:
            detail = "claims may be left: when the lease lapses, they count as calls of unknown fate"
            self._log.error("claims_not_returned", detail=detail)

    async def _give_back_all(self, deadline: float) -> bool:
        """Give claims back until none is left. Returns whether that was reached before the deadline."""
        seconds = TRY_SECONDS
        while (left := deadline - _now()) > 0:
            if await self._give_back(min(seconds, left)):
                return True
            seconds *= 2
            await asyncio.sleep(AGAIN_SECONDS)
        return False

    async def _give_back(self, seconds: float) -> bool:
        """Reconcile once, and give back what was found. The next round confirms success by finding nothing."""
        looking = asyncio.ensure_future(self._recovery.reconcile_once(lost_seconds=0.0))
        error = await within(looking, seconds)
        self._log_failure("give_back", error)
        return error is None and looking.result() == 0

    async def _release(self) -> None:
        """Release the lease once no renewal can follow, which would undo the release."""
        error = await within(self._loops.heartbeat.end(RELEASE_SECONDS), RELEASE_SECONDS)
        self._log_failure("release", error or await within(self._recovery.lease.release(), RELEASE_SECONDS))

    def _log_failure(self, step: str, error: Exception | None) -> None:
        if error is not None:
            self._log.error("drain_failed", step=step, error=fault(error))


async def _idle(busy: Callable[[], bool], deadline: float) -> None:
    while busy() and _now() < deadline:  # noqa: ASYNC110  once, at the end of the process
        await asyncio.sleep(0.05)


def _now() -> float:
    return asyncio.get_running_loop().time()
