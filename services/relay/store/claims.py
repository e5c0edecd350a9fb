"""Recovery of claims: those that are leased to this process but not held by it, and those of dead processes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from services.relay.message import Claim, Claimed
from services.relay.store import written
from services.relay.store.database import ENGINE_SECONDS, Database, Row, queries, rows
from services.relay.store.encryption import Encryption
from services.relay.store.messages import CLAIM_BYTES_MAX
from services.relay.store.sealing import claimed_of

# A message whose process died during its call, this many times in a row, is not sent again, as it may be the cause.
# Deployments that kill processes during calls reach fewer.
UNKNOWN_MAX = 10


@dataclass(frozen=True)
class Difference:
    """A claim that is `leased` to this process but not held by it, or held but not leased. See claims.sql."""

    claim: Claim
    leased: bool
    taken_over: bool
    age_seconds: float


class Claims:
    """`owner` is this process."""

    def __init__(self, database: Database, encryption: Encryption, *, owner: UUID) -> None:
        self._database = database
        self._encryption = encryption
        self._owner = owner
        self._q = queries("claims")
        self._touch_flows = queries("messages")["touch_flows"]
        self._enter = queries("messages")["enter"]
        self._unspend = queries("messages")["unspend"]

    async def differences(self, held: Collection[Claim]) -> list[Difference]:
        """Where `held` differs from the claims leased to this process. Young claims may still be in transit to it."""
        asked = {"held": written.claims(held), "owner": self._owner, "unknown_max": UNKNOWN_MAX}
        found = await self._database.fetch(self._q["differences"], asked)
        return [
            Difference((row["id"], row["started_at"]), row["leased"], row["taken_over"], row["age_seconds"])
            for row in found
        ]

    async def give_back(self, claims: Collection[Claim]) -> int:
        """Return unsent claims to the waiting messages. Returns how many still belonged to this process."""
        asked = {"claims": written.claims(claims), "owner": self._owner}
        return await self._put_back("give_back", asked)

    async def disown(self, claims: Collection[Claim]) -> int:
        """Leave claims whose calls were sent and lost to the next sweep. Returns how many still belonged to this
        process.
        """
        asked = {"claims": written.claims(claims), "owner": self._owner}
        return len(await self._database.fetch(self._q["disown"], asked))

    async def expire(self, batch_max: int, *, lapsed: bool = True, left_seconds: float = 0.0) -> int:
        """Put back messages of dead processes. Returns how many. If `lapsed` is false, only released leases count. A
        lapsed lease counts only if this process's own lease holds for `left_seconds` more.
        """
        asked = self._sweeping(batch_max, lapsed=lapsed, left_seconds=left_seconds)
        return await self._put_back("expire", asked)

    async def take_over(self, batch_max: int, *, lapsed: bool = True, left_seconds: float = 0.0) -> list[Claimed]:
        """Take over messages of dead processes that must not be sent again, with up to CLAIM_BYTES_MAX together. The
        other parameters are as for `expire`.
        """
        asked = self._sweeping(batch_max, lapsed=lapsed, left_seconds=left_seconds) | {"bytes_max": CLAIM_BYTES_MAX}
        return claimed_of(
            self._encryption, await self._database.fetch(self._q["take_over"], asked, seconds=ENGINE_SECONDS)
        )

    def _sweeping(self, batch_max: int, *, lapsed: bool, left_seconds: float) -> Row:
        of_leases = {"owner": self._owner, "lapsed": lapsed, "left_seconds": left_seconds}
        return {"batch_max": batch_max, "unknown_max": UNKNOWN_MAX} | of_leases

    async def _put_back(self, name: str, asked: Row) -> int:
        async def work(connection: AsyncConnection[Any]) -> int:
            found = await rows(connection, self._q[name], asked)
            keys = [row["flow_key"] for row in found if row["flow_key"]]
            # If a queue was resumed meanwhile, messages that its pause would have kept out may enter it.
            if names := sorted({row["queue"] for row in found if row["queue"]}):
                keys += [row["key"] for row in await rows(connection, self._enter, {"queues": names})]
            if keys:
                touches = {"keys": keys, "cool": [None] * len(keys), "answered": [False] * len(keys)}
                await connection.execute(self._touch_flows, touches)
            if unsent := [(row["flow_key"], row["unsent_at"]) for row in found if row["flow_key"] and row["unsent_at"]]:
                await connection.execute(self._unspend, written.unspent(unsent))
            return len(found)

        return await self._database.run(work, seconds=ENGINE_SECONDS)
