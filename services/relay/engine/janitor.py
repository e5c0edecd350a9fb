"""Keeps the relay's tables small and its limits truthful: drops what is old, and mends what a crash left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection

from services.relay.settings import RelaySettings
from services.relay.store.database import ENGINE_SECONDS, Database, queries, rows
from services.relay.store.queues import Queues

# Rows of one statement: a transaction of the janitor is short, and what is left over is next.
BATCH_MAX = 5000
PERIODS_MAX = 10
# Messages of one move, whose queues let nothing in meanwhile: some 50 ms. And moves of one round and period.
MOVE_MAX = 1000
MOVES_MAX = 10
QUEUES_MAX = 1000
LOCK_ID = int.from_bytes(b"janitor", "big")
# A table's lock that is waited for blocks all later ones.
LOCK_TIMEOUT_MS = 200
# A holder is given back in the transaction that ends it: what was left after so long, a fault left.
GRACE_SECONDS = 10.0
# An answer that is being stored has nothing that names it until the call ends: after 12 hours, and an hour of outages.
CHUNK_SECONDS = 13 * 3600.0

Work = Callable[[AsyncConnection[Any]], Awaitable[int]]
Step = Callable[[], Awaitable[int]]


class Janitor:
    """`run_once` is safe in any number of processes: one does it at a time, step by step, each a short transaction."""

    def __init__(self, database: Database, settings: RelaySettings) -> None:
        self._database = database
        self._settings = settings
        self._queues = Queues(database)
        self._rounds = 0
        self._keys_after = ""
        self._q = queries("janitor")

    async def run_once(self) -> int:
        """One round of bounded steps; how many rows and tables it touched. A faulty step does not keep the others back.

        Raises the last step's fault, after the others.
        """
        fault: Exception | None = None
        total = 0
        self._rounds += 1
        for step in (self._tables, self._prune, self._mend, self._flow_keys):
            try:
                total += await step()
            except psycopg.Error as error:
                fault = error
        if fault is not None:
            raise fault
        return total

    async def _tables(self) -> int:
        """What takes tables' locks, as far as the first that is refused: a backup that reads all tables would have each
        of the others waited for as well, and everybody behind. Days and periods take turns in being first.
        """
        settings = self._settings
        days: list[Step] = [
            partial(self._counted, "drop_events", {"days": settings.log_days}),
            partial(self._counted, "drop_letters", {"days": settings.dead_letter_days}),
        ]
        steps: list[Step] = [partial(self._counted, "make_partitions", {}), partial(self._locked, self._open)]
        steps += [self._close, *days] if self._rounds % 2 else [*days, self._close]
        total = 0
        with suppress(psycopg.errors.LockNotAvailable):
            for step in steps:
                total += await step()
        return total

    async def _open(self, connection: AsyncConnection[Any]) -> int:
        over = await rows(connection, self._q["period_is_over"], {"period_seconds": self._settings.period_seconds})
        return len(await rows(connection, self._q["open_period"], {})) if over[0]["count"] else 0

    async def _close(self) -> int:
        closable: list[int] = []

        async def choose(connection: AsyncConnection[Any]) -> int:
            values = {"keep_seconds": self._settings.keep_seconds, "batch_max": PERIODS_MAX}
            closable[:] = sorted(row["period"] for row in await rows(connection, self._q["closable"], values))
            return 0

        total = await self._locked(choose)
        for period in closable:
            total += await self._move(period)
            values = {"period": period, "keep_seconds": self._settings.keep_seconds}
            total += await self._counted("close_period", values)
        return total

    async def _move(self, period: int) -> int:
        """Out of a period what waits in it, some rows a transaction, as a queue's lock is held for them."""
        total = 0
        for _ in range(MOVES_MAX):
            moved = await self._count("move_waiting", {"period": period, "batch_max": MOVE_MAX})
            total += moved
            if moved < MOVE_MAX:
                break
        return total

    async def _prune(self) -> int:
        parameters = {
            "batch_max": BATCH_MAX,
            "keep_seconds": self._settings.keep_seconds,
            "age_seconds": CHUNK_SECONDS,
            "answer_seconds": self._settings.dead_letter_days * 86_400,
        }
        nouns = ("long", "answers", "chunks", "deduplications", "cancellations", "put_offs", "processes")
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
        return owners + mended

    async def _flow_keys(self) -> int:
        """Of the keys some a round, in turns: there may be very many, and most are idle."""
        after, upto = self._keys_after, await self._keys_upto()
        if upto is None and after:
            self._keys_after = after = ""
            upto = await self._keys_upto()
        if upto is None:
            return 0
        self._keys_after = upto
        stretch = {"after": after, "upto": upto, "batch_max": BATCH_MAX}
        mended = await self._count("mend_flows", stretch)
        return mended + await self._count("prune_flow_keys", stretch | {"days": self._settings.log_days})

    async def _keys_upto(self) -> str | None:
        parameters = {"after": self._keys_after, "batch_max": BATCH_MAX}
        [row] = await self._database.fetch(self._q["keys_upto"], parameters, seconds=ENGINE_SECONDS)
        upto: str | None = row["upto"]
        return upto

    async def _count(self, name: str, parameters: Mapping[str, Any]) -> int:
        """`_counted`; 0 when a lock was refused."""
        return await self._alone(self._counting(name, parameters))

    async def _counted(self, name: str, parameters: Mapping[str, Any]) -> int:
        """What a statement of its own transaction did, as its `count`. Raises `LockNotAvailable`."""
        return await self._locked(self._counting(name, parameters))

    def _counting(self, name: str, parameters: Mapping[str, Any]) -> Work:
        statement: LiteralString = self._q[name]

        async def work(connection: AsyncConnection[Any]) -> int:
            [row] = await rows(connection, statement, parameters)
            return int(row["count"])

        return work

    async def _alone(self, work: Work) -> int:
        """`_locked`; 0 when a lock was refused."""
        try:
            return await self._locked(work)
        except psycopg.errors.LockNotAvailable:
            return 0

    async def _locked(self, work: Work) -> int:
        """What `work` did; 0 when another process tidies up. Raises `LockNotAvailable`: a row or table is in use."""

        async def step(connection: AsyncConnection[Any]) -> int:
            [row] = await rows(connection, self._q["alone"], {"lock_id": LOCK_ID})
            if not row["alone"]:
                return 0
            await connection.execute(self._q["patience"], {"lock_timeout_ms": LOCK_TIMEOUT_MS})
            return await work(connection)

        return await self._database.run(step, seconds=ENGINE_SECONDS)
