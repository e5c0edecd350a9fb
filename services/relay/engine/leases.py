"""The lease of this process, and its uses: recovery of its own lost claims, and of the calls of dead processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from structlog.stdlib import BoundLogger

from services.relay.engine.calls import Calls
from services.relay.engine.database_clock import DatabaseClock
from services.relay.engine.ending_writer import EndingWriter
from services.relay.message import Claim, Claimed
from services.relay.metrics import RelayMetrics
from services.relay.outcome.outcome import Answer
from services.relay.store.claims import UNKNOWN_MAX, Claims, Difference
from services.relay.store.processes import Processes

# Rows of one statement.
SWEEP_MAX = 250
# A claim counts as lost when it is older than any round of claims in progress by a third of the lease, so that lost
# claims are recovered within one lease. The margin is at most this, as it only covers clocks that run at different
# speeds.
ASTRAY_SECONDS_MAX = 5.0


class Leases:
    """`beat_once` renews the lease. `reconcile_once` finds claims that are leased to this process but not held by it.
    `sweep_once` recovers the claims of other processes.
    """

    def __init__(
        self,
        processes: Processes,
        claims: Claims,
        calls: Calls,
        writer: EndingWriter,
        clock: DatabaseClock,
        metrics: RelayMetrics,
        log: BoundLogger,
        *,
        lease_seconds: float,
        fail: Callable[[Claimed, Answer], None],
        given_up: Callable[[], None],
    ) -> None:
        """`fail` ends a message that was taken over. `given_up` is called when messages may have become claimable.
        `processes` should have a connection of its own.
        """
        self._processes = processes
        self._claims = claims
        self._calls = calls
        self._writer = writer
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._lease_seconds = lease_seconds
        # Renewals come every third of a lease. The limit of half a lease must match processes.sql.
        self._late_seconds = lease_seconds / 2
        self._fail = fail
        self._given_up = given_up
        # When the lease was last renewed, by the monotonic clock.
        self.renewed = float("-inf")
        # Whether the last renewal succeeded.
        self._steady = False
        self._sweeping_from = float("inf")
        self._reconciling_from = float("-inf")

    @property
    def lapsed(self) -> bool:
        """Whether another process may have taken over the claims of this one, because the lease was not renewed in
        time. The time is taken before each renewal is sent, so this is true before the lease lapses by the database's
        clock.
        """
        return float("-inf") < self.renewed < time.monotonic() - self._lease_seconds

    async def beat_once(self) -> None:
        """Renew the lease. At the start, and after a renewal that failed or came late, other processes get the time of
        a lease to renew theirs before their claims are swept: the database may have been away for them too. A lease may
        lapse in an outage shorter than itself, while leases renewed slightly later still hold.
        """
        asked, steady = time.monotonic(), self._steady
        self._steady = False
        now, kept = await self._processes.renew(self._lease_seconds)
        self._clock.set(now, asked)
        if not (steady and kept and asked - self.renewed <= self._late_seconds):
            self._sweeping_from = time.monotonic() + self._lease_seconds
            self._reconciling_from = asked
        self.renewed = asked
        self._steady = True

    async def tend_once(self) -> None:
        """Reconcile three times a lease, then sweep. They do not run concurrently, as a sweep takes over claims."""
        if time.monotonic() >= self._reconciling_from:
            self._reconciling_from = time.monotonic() + self._lease_seconds / 3
            await self.reconcile_once()
        await self.sweep_once()

    async def reconcile_once(self, *, astray_seconds: float | None = None) -> int:
        """Repair the differences between held and leased claims. Returns how many claims of this process were lost. A
        lost claim whose row is locked stays and counts again, so 0 means that none is left.

        `astray_seconds` is 0 at the end of the process, when no claim can be in transit.
        """
        orphans = self._calls.orphans
        since = min(time.monotonic(), self._calls.claiming_since())
        found = await self._claims.differences([*self._calls.claims, *self._writer.claims])
        least = min(ASTRAY_SECONDS_MAX, self._lease_seconds / 3) if astray_seconds is None else astray_seconds
        old_seconds = 0.0 if astray_seconds == 0 else time.monotonic() - since + least
        for difference in found:
            if not difference.leased:
                self._calls.abort_claim(difference.claim)
        lost = astray(found, self._held, old_seconds)
        await self._give_up(lost, orphans)
        # Claims that are leased here but too young are examined again later.
        self._calls.forget(orphans - ({one.claim for one in found if one.leased} - {one.claim for one in lost}))
        return len(lost)

    async def sweep_once(self) -> int:
        """Recover claims of dead processes. Returns how many. Unless this process has renewed its own lease in time,
        only released leases are recovered.
        """
        lapsed = self._sweeping_from <= time.monotonic() <= self.renewed + self._late_seconds
        left_seconds = self._lease_seconds - self._late_seconds
        expired = await self._claims.expire(SWEEP_MAX, lapsed=lapsed, left_seconds=left_seconds)
        with self._calls.claiming():
            failed = await self._claims.take_over(SWEEP_MAX, lapsed=lapsed, left_seconds=left_seconds)
            for message in failed:
                self._fail(message, Answer(0, (), b"", error=_died(message), fate="unknown"))
        if expired or failed:
            self._metrics.expiries.inc(expired + len(failed))
            self._metrics.unknown.inc(expired + len(failed))
            self._log.warning("lease_expired", retried=expired, failed=len(failed))
            self._given_up()
        return expired + len(failed)

    async def cancel_once(self) -> None:
        """Break off the calls of this process whose messages other processes cancelled."""
        for message_id in await self._processes.cancellations() if len(self._calls) else ():
            self._calls.abort(message_id)

    async def release(self) -> None:
        """Release the lease at the end of the process, so that the others may take over its claims at once."""
        await self._processes.release()

    def _held(self, claim: Claim) -> bool:
        return claim in self._calls or claim in self._writer

    async def _give_up(self, lost: Iterable[Difference], orphans: frozenset[Claim]) -> None:
        sent = [one.claim for one in lost if one.taken_over or one.claim in orphans]
        unsent = [one.claim for one in lost if not (one.taken_over or one.claim in orphans)]
        disowned = await self._claims.disown(sent) if sent else 0
        returned = await self._claims.give_back(unsent) if unsent else 0
        if disowned or returned:
            self._log.warning("claims_put_right", never_sent=returned, fate_unknown=disowned)
            self._given_up()


def astray(found: Iterable[Difference], held: Callable[[Claim], bool], old_seconds: float) -> list[Difference]:
    """The claims that are leased to this process but not held by any task. A younger claim may be in transit, or held
    since the query.
    """
    return [one for one in found if one.leased and one.age_seconds >= old_seconds and not held(one.claim)]


def _died(message: Claimed) -> str:
    died = "fate unknown: the relay died during the call"
    return died if message.on_unknown == "fail" else f"{died}, as it did {UNKNOWN_MAX} times before in a row"
