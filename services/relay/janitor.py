"""Keeps the relay's tables small and its limits truthful: drops what is old, and mends what a crash left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection

from services.relay.settings import RelaySettings
from services.relay.store.database import Database, queries, rows
from services.relay.store.queues import Queues

# Rows of one statement: a transaction of the janitor is short, and what is left over is next.
BATCH_MAX = 5000
PERIODS_MAX = 10
QUEUES_MAX = 1000
LOCK_ID = int.from_bytes(b"janitor", "big")
# Everybody waits behind a lock that is waited for.
LOCK_TIMEOUT_MS = 200
# A holder is given back in the transaction that ends it: what was left after so long, a fault left.
GRACE_SECONDS = 10.0
# An answer that is being stored has nothing that names it until the call ends: after 12 hours at the latest.
CHUNK_SECONDS = 13 * 3600.0

Work = Callable[[AsyncConnection[Any]], Awaitable[int]]


class Janitor:
    """`run_once` is safe in any number of processes: one does it at a time, step by step, each a short transaction."""

    def __init__(self, database: Database, settings: RelaySettings) -> None:
        self._database = database
        self._settings = settings
        self._queues = Queues(database)
        self._q = queries("janitor")

    async def run_once(self) -> int:
        """One round of bounded steps; how many rows and tables it touched. A faulty step does not keep the others back.

        Raises the last step's fault, after the others.
        """
        fault: Exception | None = None
        total = 0
        for step in (self._periods, self._days, self._prune, self._mend):
            try:
                total += await step()
            except psycopg.Error as error:
                fault = error
        if fault is not None:
            raise fault
        return total

    async def _periods(self) -> int:
        settings = self._settings
        made = await self._count("make_partitions", {})
        opened = await self._alone(self._open)
        closing = {"keep_seconds": settings.keep_seconds, "batch_max": PERIODS_MAX}
        closed = 0
        for row in await self._database.fetch(self._q["closable"], closing):
            closed += await self._count("close_period", row | {"keep_seconds": settings.keep_seconds})
        return made + opened + closed

    async def _open(self, connection: AsyncConnection[Any]) -> int:
        over = await rows(connection, self._q["period_is_over"], {"period_seconds": self._settings.period_seconds})
        return len(await rows(connection, self._q["open_period"], {})) if over[0]["count"] else 0

    async def _days(self) -> int:
        events = await self._count("drop_events", {"days": self._settings.log_days})
        return events + await self._count("drop_letters", {"days": self._settings.dead_letter_days})

    async def _prune(self) -> int:
        parameters = {
            "batch_max": BATCH_MAX,
            "keep_seconds": self._settings.keep_seconds,
            "age_seconds": CHUNK_SECONDS,
            "answer_seconds": self._settings.dead_letter_days * 86_400,
            "days": self._settings.log_days,
        }
        nouns = ("long", "answers", "chunks", "deduplications", "cancellations", "processes", "flow_keys")
        return sum([await self._count(f"prune_{noun}", parameters) for noun in nouns])

    async def _mend(self) -> int:
        parameters = {"batch_max": BATCH_MAX, "grace_seconds": GRACE_SECONDS, "queues_max": QUEUES_MAX}

        async def holders(connection: AsyncConnection[Any]) -> int:
            return (await connection.execute(self._q["mend_holders"], parameters)).rowcount

        async def waiting(connection: AsyncConnection[Any]) -> int:
            found = await rows(connection, self._q["queued_in"], parameters)
            names = [row["queue"] for row in found]
            # Deleted in the very moment in which a message came into it.
            made = (await connection.execute(self._q["make_queues"], {"queues": names})).rowcount
            await self._queues.enter_in(connection, names)
            return made

        owners = await self._count("mend_owners", {})
        mended = await self._alone(holders) + await self._alone(waiting)
        return owners + mended + await self._count("mend_flows", parameters)

    async def _count(self, name: str, parameters: Mapping[str, Any]) -> int:
        statement: LiteralString = self._q[name]

        async def work(connection: AsyncConnection[Any]) -> int:
            [row] = await rows(connection, statement, parameters)
            return int(row["count"])

        return await self._alone(work)

    async def _alone(self, work: Work) -> int:
        """What `work` did; 0 when another process tidies up, or a table is in use."""

        async def step(connection: AsyncConnection[Any]) -> int:
            [row] = await rows(connection, self._q["alone"], {"lock_id": LOCK_ID})
            if not row["alone"]:
                return 0
            await connection.execute(self._q["patience"], {"lock_timeout_ms": LOCK_TIMEOUT_MS})
            return await work(connection)

        try:
            return await self._database.run(step)
        except psycopg.errors.LockNotAvailable:
            return 0
