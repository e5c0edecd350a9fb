"""This process among the others on the database: its lease, and the calls it is told to break off."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from services.relay.store.database import Database, queries


class Processes:
    """`owner` is this process: calls are held in its name, and are its own while its lease runs."""

    def __init__(self, database: Database, *, owner: UUID, lease: Database | None = None) -> None:
        """`lease`: what the lease alone is renewed and released by, so that it waits for nothing else."""
        self._database = database
        self._lease = lease or database
        self._q = queries("processes")
        self.owner = owner

    async def renew(self, lease_seconds: float) -> tuple[datetime, bool]:
        """One row, however many calls. Without it nothing can be claimed. Answers what the database's clock says, and
        whether more than half of the lease was left by it.

        A silent database leaves time to try again.
        """
        asked = {"owner": self.owner, "lease_seconds": lease_seconds}
        [row] = await self._lease.fetch(self._q["renew"], asked, seconds=lease_seconds / 3)
        return row["now"], row["kept"]

    async def cancellations(self) -> list[str]:
        """Messages whose calls are to be broken off here; each is told once."""
        found = await self._database.fetch(self._q["cancellations"], {"owner": self.owner})
        return [row["message_id"] for row in found]

    async def release(self) -> None:
        """Let the others take over what this process holds."""
        await self._lease.execute(self._q["release"], {"owner": self.owner})
