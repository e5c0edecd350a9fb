"""The recovery of lost claims of this process, and of the claims of dead processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from services.relay.engine.claimer import Claimer
from services.relay.engine.held_claims import HeldClaims
from services.relay.engine.lease import Lease
from services.relay.message import Claim, Claimed
from services.relay.metrics import RelayMetrics
from services.relay.outcome.outcome import Answer
from services.relay.store.claims import UNKNOWN_MAX, Claims, Difference
from tidings.process.telemetry import Telemetry

# Rows of one statement.
SWEEP_MAX = 250
# A claim counts as lost when it is older than any round of claims in progress by a third of the lease, so that lost
# claims are recovered within one lease. The margin is at most this, as it only covers clocks that run at different
# speeds.
LOST_SECONDS_MAX = 5.0


class Recovery:
    """`reconcile_once` finds claims that are leased to this process but not held by it. `sweep_once` recovers the
    claims of other processes.
    """

    def __init__(
        self, lease: Lease, claims: Claims, held: HeldClaims, claimer: Claimer, telemetry: Telemetry[RelayMetrics]
    ) -> None:
        """`claimer` fails the messages that were taken over, and is woken when messages may have become claimable."""
        self.lease = lease
        self.held = held
        self._claims = claims
        self._calls = held.calls
        self._claimer = claimer
        self._metrics = telemetry.metrics
        self._log = telemetry.log
        self._reconciling_from = float("-inf")
        self._steady_since = float("-inf")

    async def recover_once(self) -> None:
        """Reconcile three times a lease, then sweep. They do not run concurrently, as a sweep takes over claims."""
        interrupted = self.lease.steady_since > self._steady_since
        self._steady_since = self.lease.steady_since
        if interrupted or time.monotonic() >= self._reconciling_from:
            self._reconciling_from = time.monotonic() + self.lease.seconds / 3
            await self.reconcile_once()
        await self.sweep_once()

    async def reconcile_once(self, *, lost_seconds: float | None = None) -> int:
        """Repair the differences between held and leased claims. Returns how many claims of this process were lost. A
        lost claim whose row is locked stays and counts again, so 0 means that none is left.

        `lost_seconds` is 0 at the end of the process, when no claim can be in transit.
        """
        orphans = self._calls.orphans
        since = min(time.monotonic(), self._calls.claiming_since())
        found = await self._claims.differences(self.held.claims)
        least = min(LOST_SECONDS_MAX, self.lease.seconds / 3) if lost_seconds is None else lost_seconds
        old_seconds = 0.0 if lost_seconds == 0 else time.monotonic() - since + least
        for difference in found:
            if not difference.leased:
                self._calls.abort_claim(difference.claim)
        lost = lost_claims(found, self.held.__contains__, old_seconds)
        await self._return(lost, orphans)
        # Claims that are leased here but too young are examined again later.
        self._calls.forget(orphans - ({one.claim for one in found if one.leased} - {one.claim for one in lost}))
        return len(lost)

    async def sweep_once(self) -> int:
        """Recover claims of dead processes. Returns how many. Unless this process has renewed its own lease in time,
        only released leases are recovered.
        """
        lapsed = self.lease.may_sweep
        left_seconds = self.lease.seconds - self.lease.late_seconds
        expired = await self._claims.expire(SWEEP_MAX, lapsed=lapsed, left_seconds=left_seconds)
        with self._calls.claiming():
            failed = await self._claims.take_over(SWEEP_MAX, lapsed=lapsed, left_seconds=left_seconds)
            for message in failed:
                self._claimer.fail(message, Answer(0, (), b"", error=_died(message), fate="unknown"))
        if expired or failed:
            self._metrics.expiries.inc(expired + len(failed))
            self._metrics.unknown.inc(expired + len(failed))
            self._log.warning("lease_expired", retried=expired, failed=len(failed))
            self._claimer.wake()
        return expired + len(failed)

    async def _return(self, lost: Iterable[Difference], orphans: frozenset[Claim]) -> None:
        sent = [one.claim for one in lost if one.taken_over or one.claim in orphans]
        unsent = [one.claim for one in lost if not (one.taken_over or one.claim in orphans)]
        disowned = await self._claims.disown(sent) if sent else 0
        returned = await self._claims.give_back(unsent) if unsent else 0
        if disowned or returned:
            self._log.warning("claims_recovered", never_sent=returned, fate_unknown=disowned)
            self._claimer.wake()


def lost_claims(found: Iterable[Difference], held: Callable[[Claim], bool], old_seconds: float) -> list[Difference]:
    """The claims that are leased to this process but not held by any task. A younger claim may be in transit, or held
    since the query.
    """
    return [one for one in found if one.leased and one.age_seconds >= old_seconds and not held(one.claim)]


def _died(message: Claimed) -> str:
    died = "fate unknown: the relay died during the call"
    return died if message.on_unknown == "fail" else f"{died}, as it did {UNKNOWN_MAX} times before in a row"
