"""Messages are accepted, claimed, finished and cancelled here. Each of these operations is one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from services.relay.ending import Ending
from services.relay.message import Claimed, Draft, new_message_id
from services.relay.outcome.outcome import Retry
from services.relay.store import written
from services.relay.store.database import ENGINE_SECONDS, Database, Row, queries, rows
from services.relay.store.encryption import Encryption
from services.relay.store.record import STATEMENT_BYTES_MAX, record
from services.relay.store.sealing import Sealer, claimed_of
from services.relay.store.slicing import slices

# A flow key, the time until which it cools, and whether its provider answered.
Touch = tuple[str, datetime | None, bool]

# The most keys with claimable messages that one claim examines. The next claim examines the others.
KEYS_MAX = 100
# The limit up to which gauges count each kind: some 30 ms of the database's time, every 10 s.
COUNT_MAX = 100_000
# The rows of a claim are briefly in memory twice.
CLAIM_BYTES_MAX = 4 * 1024 * 1024
# Errors caused by the value itself: no column accepts it, or it is too long for an index.
_REFUSED = (psycopg.DataError, psycopg.errors.ProgramLimitExceeded)


@dataclass(frozen=True)
class Accepted:
    """A committed message. `deduplicated`: it existed before, under this id."""

    message_id: str
    deduplicated: bool


class UnstorableError(Exception):
    """The database refuses a value because of its content. A retry cannot succeed."""


class Messages:
    """`owner` is this process, in whose name calls are held."""

    def __init__(self, database: Database, encryption: Encryption, *, owner: UUID) -> None:
        self._database = database
        self._encryption = encryption
        self._owner = owner
        self._q = queries("messages")
        self._release = queries("chunks")["release"]

    async def accept(self, drafts: Sequence[Draft], deduplication_seconds: float) -> list[Accepted]:
        """Commit `drafts` in one transaction. Returns one answer each, in order. Raises `UnstorableError`."""

        async def work(connection: AsyncConnection[Any]) -> list[Accepted]:
            return await self.accept_in(connection, drafts, deduplication_seconds)

        return await self._database.run(work)

    async def accept_in(
        self, connection: AsyncConnection[Any], drafts: Sequence[Draft], deduplication_seconds: float
    ) -> list[Accepted]:
        """As `accept`, within the transaction on `connection`."""
        try:
            return await self._accepted(connection, drafts, deduplication_seconds)
        except _REFUSED as error:
            raise UnstorableError(str(error)) from None

    async def _accepted(
        self, connection: AsyncConnection[Any], drafts: Sequence[Draft], deduplication_seconds: float
    ) -> list[Accepted]:
        ids = [new_message_id() for _ in drafts]
        keys = [draft.deduplication_id for draft in drafts]
        holders = await self._holders(connection, keys, ids, deduplication_seconds)
        accepted = [
            Accepted(id_ if key is None else holders[key], deduplicated=key is not None and holders[key] != id_)
            for key, id_ in zip(keys, ids, strict=True)
        ]
        new = [(id_, draft) for id_, draft, a in zip(ids, drafts, accepted, strict=True) if not a.deduplicated]
        await self._insert(connection, new)
        return accepted

    async def claim(self, batch_max: int, bytes_max: int = CLAIM_BYTES_MAX) -> list[Claimed]:
        """Claim up to `batch_max` due messages without a flow key, with bodies, headers and options of up to
        `bytes_max` together. The first one is claimed whatever its size. Their attempts are recorded when this returns.
        """
        return await self._claim("claim", batch_max, bytes_max)

    async def claim_keyed(self, batch_max: int, bytes_max: int = CLAIM_BYTES_MAX) -> list[Claimed]:
        """Claim messages with a flow key in the same way, within the limits that hold for all processes together."""
        return await self._claim("claim_keyed", batch_max, bytes_max)

    async def _claim(self, statement: str, batch_max: int, bytes_max: int) -> list[Claimed]:
        limits = {"batch_max": batch_max, "bytes_max": min(bytes_max, CLAIM_BYTES_MAX), "keys_max": KEYS_MAX}
        values = limits | {"owner": self._owner}
        found = await self._database.fetch(self._q[statement], values, seconds=ENGINE_SECONDS)
        return claimed_of(self._encryption, found)

    async def next_due_seconds(self) -> float | None:
        """The seconds until a message may be claimable. None: no message waits."""
        [row] = await self._database.fetch(self._q["next_due"], {})
        seconds: float | None = row["seconds"]
        return seconds

    async def finish(self, endings: Sequence[Ending]) -> list[Ending]:
        """Commit verdicts and their consequences. Returns the endings whose claims this process still held. Raises
        `UnstorableError`.
        """

        async def work(connection: AsyncConnection[Any]) -> list[Ending]:
            # The newest first, so that a callback is locked before its parent. All transactions lock messages in this
            # order.
            in_order = sorted(endings, key=lambda ending: ending.message.id, reverse=True)
            verdicts = written.as_json([written.verdict(ending) for ending in in_order])
            found = await rows(connection, self._q["finish"], {"rows": verdicts, "owner": self._owner})
            ours = {(row["id"], row["started_at"]) for row in found}
            kept = [ending for ending in endings if ending.message.claim in ours]
            async with connection.pipeline():
                again = await record(connection, self._q, kept)
                await self._insert(connection, [(new_message_id(), draft) for e in kept for draft in e.callbacks])
            ended = [e.message for e in kept if not isinstance(e.verdict, Retry)]
            await self._settle(
                connection,
                # If a queue was paused meanwhile, messages to be retried are kept out of it.
                entering=[e.message.queue for e in kept if isinstance(e.verdict, Retry) and e.message.queue],
                leaving=[m.id for m in ended if m.queue is not None] + [m.parent_id for m in ended if m.parent_id],
                flows=[(e.message.flow_key, e.cool_until, e.answered) for e in kept if e.message.flow_key],
            )
            if unsent := [(e.message.flow_key, e.message.started_at) for e in again if e.message.flow_key]:
                await connection.execute(self._q["unspend"], written.unspent(unsent))
            return kept

        try:
            return await self._database.run(work, seconds=ENGINE_SECONDS)
        except _REFUSED as error:
            raise UnstorableError(str(error)) from None

    async def cancel(self, ids: Sequence[str]) -> list[str]:
        """Cancel messages that have not ended. Returns their ids. The processes that hold their
        calls break these off.
        """

        async def work(connection: AsyncConnection[Any]) -> list[str]:
            found = await self._twice(connection, "cancel", ids)
            await self._settle(
                connection,
                leaving=[row["parent_id"] for row in found if row["parent_id"]],
                entering=[row["queue"] for row in found if row["queue"]],
                flows=[(row["flow_key"], None, False) for row in found if row["flow_key"]],
            )
            if keys := sorted({row["body_key"] for row in found if row["body_key"]}):
                await connection.execute(self._release, {"keys": keys})
            return [row["id"] for row in found]

        return await self._database.run(work)

    async def depth(self) -> Row:
        """The number of `waiting` and `active` messages, `oldest` (seconds overdue), and `cooling` keys. Counts stop at
        a few COUNT_MAX.
        """
        [row] = await self._database.fetch(self._q["depth"], {"count_max": COUNT_MAX})
        return row

    async def _holders(
        self, connection: AsyncConnection[Any], keys: Sequence[str | None], ids: Sequence[str], window_seconds: float
    ) -> dict[str, str]:
        """The message that holds each deduplication key. If several messages of a batch have one key, the first may
        take it.
        """
        first: dict[str, str] = {}
        for key, id_ in zip(keys, ids, strict=True):
            if key is not None:
                first.setdefault(key, id_)
        if not first:
            return {}
        asked = {"keys": list(first), "ids": list(first.values()), "window_seconds": window_seconds}
        found = {row["key"]: row["message_id"] for row in await rows(connection, self._q["deduplicate"], asked)}
        for key in first.keys() - found.keys():
            [row] = await rows(connection, self._q["holder"], {"key": key})
            found[key] = row["message_id"]
        return found

    async def _insert(self, connection: AsyncConnection[Any], new: Sequence[tuple[str, Draft]]) -> None:
        if not new:
            return
        sealer = Sealer(self._encryption)
        sealed = [(id_, draft, sealer.seal(draft)) for id_, draft in new]
        for some in slices(sealed, STATEMENT_BYTES_MAX, lambda one: one[1].inline_bytes + len(one[2])):
            values = [written.message(*one) for one in some]
            await connection.execute(self._q["insert"], {"rows": written.as_json(values)})
        promoted = []
        if names := sorted({draft.queue for _, draft in new if draft.queue is not None}):
            await connection.execute(self._q["make_queues"], {"queues": names})
            promoted = [row["key"] for row in await rows(connection, self._q["enter"], {"queues": names})]
        if flows := written.flows([draft for _, draft in new]):
            await connection.execute(self._q["set_limits"], flows)
            await connection.execute(self._q["set_flows"], flows)
        await self._touch(connection, [(key, None, False) for key in promoted])

    async def _settle(
        self,
        connection: AsyncConnection[Any],
        *,
        leaving: Sequence[str] = (),
        entering: Sequence[str] = (),
        flows: Sequence[Touch] = (),
    ) -> None:
        """Pass on what ended messages free. `leaving` are queued messages that may have ended with all their callbacks;
        `entering` are queues that may have free slots. Locks are taken in the global order: messages, queues, flow
        keys.
        """
        names = set(entering)
        if leaving:
            ids = sorted(set(leaving))
            await self._twice(connection, "lock_parents", ids)
            names |= {row["queue"] for row in await rows(connection, self._q["leave"], {"ids": ids})}
        promoted = []
        if names:
            promoted = [row["key"] for row in await rows(connection, self._q["enter"], {"queues": sorted(names)})]
        await self._touch(connection, [*flows, *((key, None, False) for key in promoted)])

    async def _twice(self, connection: AsyncConnection[Any], name: str, ids: Sequence[str]) -> list[Row]:
        """The rows of a statement that locks messages by id, including a second run for those that the first missed. If
        the janitor moved a row while its lock was awaited, the row is in another partition, and only a new snapshot
        sees it. A message is moved at most once.
        """
        found = await rows(connection, self._q[name], {"ids": list(ids)})
        if missing := sorted(set(ids) - {row["id"] for row in found}):
            found += await rows(connection, self._q[name], {"ids": missing})
        return found

    async def _touch(self, connection: AsyncConnection[Any], flows: Sequence[Touch]) -> None:
        if flows:
            keys, cool, answered = (list(column) for column in zip(*flows, strict=True))
            await connection.execute(self._q["touch_flows"], {"keys": keys, "cool": cool, "answered": answered})
