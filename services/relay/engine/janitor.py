"""Removes old rows and partitions, and repairs counters and slots after a crash."""

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

# Rows of one statement. Each transaction of the janitor is short; the next round takes the rest.
BATCH_MAX = 5000
PERIODS_MAX = 10
# Messages of one move, which blocks their queues for some 50 ms; and the most moves of one round and partition.
MOVE_MAX = 1000
MOVES_MAX = 10
QUEUES_MAX = 1000
LOCK_ID = int.from_bytes(b"janitor", "big")
# A waiting lock request on a table blocks all later ones.
LOCK_TIMEOUT_MS = 200
# A slot is freed in the transaction that ends its message. One still held after this time was leaked by a fault.
GRACE_SECONDS = 10.0
# The longest time for which nothing refers to the pieces of an answer that is being stored: 12 hours of a call, and an
# hour of outages.
CHUNK_SECONDS = 13 * 3600.0

Work = Callable[[AsyncConnection[Any]], Awaitable[int]]
Step = Callable[[], Awaitable[int]]


class Janitor:
    """`run_once` is safe in any number of processes: one runs it at a time, in steps, each a short transaction."""

    def __init__(self, database: Database, settings: RelaySettings) -> None:
        self._database = database
        self._settings = settings
        self._queues = Queues(database)
        self._rounds = 0
        self._keys_after = ""
        self._q = queries("janitor")

    async def run_once(self) -> int:
        """Run one round of bounded steps. Returns how many rows and tables it touched. A failing step does not block
        the others.

        Raises the last error after all steps.
        """
        fault: Exception | None = None
        total = 0
        self._rounds += 1
        for step in (self._tables, self._prune, self._repair, self._flow_keys):
            try:
                total += await step()
            except psycopg.Error as error:
                fault = error
        if fault is not None:
            raise fault
        return total

    async def _tables(self) -> int:
        """Run the steps that lock tables, up to the first that is refused. During a backup, which reads all tables,
        each further step would wait too and block other statements behind it. Days and periods alternate in going
        first.
        """
        settings = self._settings
        days: list[Step] = [
            partial(self._counted, "drop_events", {"days": settings.log_days}),
            partial(self._counted, "drop_dead_letters", {"days": settings.dead_letter_days}),
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
        """Move the waiting messages out of a partition, a bounded number per transaction, as their queues stay locked
        for it.
        """
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
        tables = ("long", "answers", "chunks", "deduplications", "cancellations", "put_offs", "processes")
        return sum([await self._count(f"prune_{table}", parameters) for table in tables])

    async def _repair(self) -> int:
        parameters = {"batch_max": BATCH_MAX, "grace_seconds": GRACE_SECONDS, "queues_max": QUEUES_MAX}

        async def holders(connection: AsyncConnection[Any]) -> int:
            return (await connection.execute(self._q["free_places_of_ended"], parameters)).rowcount

        async def waiting(connection: AsyncConnection[Any]) -> int:
            found = await rows(connection, self._q["queued_in"], parameters)
            names = [row["queue"] for row in found]
            # The queue was deleted while a message was being published to it.
            made = (await connection.execute(self._q["make_queues"], {"queues": names})).rowcount
            await self._queues.enter_in(connection, names)
            return made

        owners = await self._count("add_missing_owners", {})
        repaired = await self._unless_locked(holders) + await self._unless_locked(waiting)
        return owners + repaired

    async def _flow_keys(self) -> int:
        """Check a bounded number of keys per round, in turn: there may be very many, and most are idle."""
        after, upto = self._keys_after, await self._keys_upto()
        if upto is None and after:
            self._keys_after = after = ""
            upto = await self._keys_upto()
        if upto is None:
            return 0
        self._keys_after = upto
        key_range = {"after": after, "upto": upto, "batch_max": BATCH_MAX}
        repaired = await self._count("wake_flow_keys", key_range)
        return repaired + await self._count("prune_flow_keys", key_range | {"days": self._settings.log_days})

    async def _keys_upto(self) -> str | None:
        parameters = {"after": self._keys_after, "batch_max": BATCH_MAX}
        [row] = await self._database.fetch(self._q["keys_upto"], parameters, seconds=ENGINE_SECONDS)
        upto: str | None = row["upto"]
        return upto

    async def _count(self, name: str, parameters: Mapping[str, Any]) -> int:
        """As `_counted`, but 0 when a lock was refused."""
        return await self._unless_locked(self._counting(name, parameters))

    async def _counted(self, name: str, parameters: Mapping[str, Any]) -> int:
        """The `count` that a statement returns, in its own transaction. Raises `LockNotAvailable`."""
        return await self._locked(self._counting(name, parameters))

    def _counting(self, name: str, parameters: Mapping[str, Any]) -> Work:
        statement: LiteralString = self._q[name]

        async def work(connection: AsyncConnection[Any]) -> int:
            [row] = await rows(connection, statement, parameters)
            return int(row["count"])

        return work

    async def _unless_locked(self, work: Work) -> int:
        """As `_locked`, but 0 when a lock was refused."""
        try:
            return await self._locked(work)
        except psycopg.errors.LockNotAvailable:
            return 0

    async def _locked(self, work: Work) -> int:
        """The result of `work`; 0 when another process runs the janitor. Raises `LockNotAvailable` when a row or table
        is in use.
        """

        async def step(connection: AsyncConnection[Any]) -> int:
            [row] = await rows(connection, self._q["try_lock"], {"lock_id": LOCK_ID})
            if not row["locked"]:
                return 0
            await connection.execute(self._q["set_lock_timeout"], {"lock_timeout_ms": LOCK_TIMEOUT_MS})
            return await work(connection)

        return await self._database.run(step, seconds=ENGINE_SECONDS)
