"""The lease of this process on its claims."""

from __future__ import annotations

import time
from datetime import datetime

from services.relay.engine.database_clock import DatabaseClock
from services.relay.store.processes import Processes


class Lease:
    """`renew_once` renews the lease, three times in its length."""

    def __init__(self, processes: Processes, clock: DatabaseClock, seconds: float) -> None:
        """`processes` should have a connection of its own."""
        self._processes = processes
        self._clock = clock
        self.seconds = seconds
        # Renewals come every third of a lease. The limit of half a lease must match processes.sql.
        self.late_seconds = seconds / 2
        # When the lease was last renewed, by the monotonic clock.
        self.renewed = float("-inf")
        # Whether the last renewal succeeded.
        self._steady = False
        self._sweeping_from = float("inf")
        # Since when the renewals are in time: claims may have been lost before. By the monotonic clock.
        self.steady_since = float("-inf")
        # The renewal before which the lease may have lapsed, by the database's clock.
        self._held_since: datetime | None = None

    def lapsed(self, started_at: datetime) -> bool:
        """Whether another process may have taken over a claim of this time, because the lease was not renewed in time
        since. A later renewal does not bring the claim back. The time is taken before each renewal is sent, so this is
        true before the lease lapses by the database's clock.
        """
        if float("-inf") < self.renewed < time.monotonic() - self.seconds:
            return True
        # While the lease had lapsed nothing was claimed, so a later claim is one of the renewed lease.
        return self._held_since is not None and started_at < self._held_since

    @property
    def may_sweep(self) -> bool:
        """Whether the lapsed leases of other processes may be taken over: see `renew_once`."""
        return self._sweeping_from <= time.monotonic() <= self.renewed + self.late_seconds

    async def renew_once(self) -> None:
        """Renew the lease. At the start, and after a renewal that failed or came late, other processes get the time of
        a lease to renew theirs before their claims are swept: the database may have been away for them too. A lease may
        lapse in an outage shorter than itself, while leases renewed slightly later still hold.
        """
        started, steady = time.monotonic(), self._steady
        self._steady = False
        now, kept = await self._processes.renew(self.seconds)
        self._clock.set(now, started)
        if not (steady and kept and started - self.renewed <= self.late_seconds):
            self._sweeping_from = time.monotonic() + self.seconds
            self.steady_since = started
        if time.monotonic() - self.renewed > self.seconds:
            self._held_since = now
        self.renewed = started
        self._steady = True

    async def release(self) -> None:
        """Release the lease at the end of the process, so that the others may take over its claims at once."""
        await self._processes.release()
