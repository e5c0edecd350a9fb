"""This process among the others on the database: its lease, and the calls that others cancelled."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from services.relay.store.database import Database, queries


class Processes:
    """`owner` is this process. Calls are held in its name, and belong to it while its lease holds."""

    def __init__(self, database: Database, *, owner: UUID, lease: Database | None = None) -> None:
        """`lease`: the connection that only the lease uses, so that a renewal waits for nothing else."""
        self._database = database
        self._lease = lease or database
        self._q = queries("processes")
        self.owner = owner

    async def renew(self, lease_seconds: float) -> tuple[datetime, bool]:
        """Renew the lease: one row, however many calls. Without it nothing can be claimed. Returns the database's time,
        and whether more than half of the lease was left at that time.

        When the database is silent, this leaves time for another try.
        """
        asked = {"owner": self.owner, "lease_seconds": lease_seconds}
        [row] = await self._lease.fetch(self._q["renew"], asked, seconds=lease_seconds / 3)
        return row["now"], row["kept"]

    async def cancellations(self) -> list[str]:
        """The messages whose calls this process must break off. Each is returned once."""
        found = await self._database.fetch(self._q["cancellations"], {"owner": self.owner})
        return [row["message_id"] for row in found]

    async def release(self) -> None:
        """Let other processes take over the claims of this one."""
        await self._lease.execute(self._q["release"], {"owner": self.owner})
