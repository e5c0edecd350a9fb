"""Queues: their parallelism, and what pausing them does to the messages that are in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection

from services.relay.protocol.views import QueueView
from services.relay.store.database import Database, queries, rows

# Messages of one transaction, which holds the queue's lock, and with it whoever publishes to the queue: some 100 ms.
CANCEL_MAX = 2000
# Of one request: ten million messages.
CANCELS_MAX = 5000


class Queues:
    """All of relay.queues. A queue is made on its first use, with a parallelism of 1."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._q = queries("queues")

    async def upsert(self, name: str, parallelism: int, paused: bool | None = None) -> None:  # noqa: FBT001  as the protocol has it
        """Make the queue, or change it; `paused` None leaves that as it is (a new queue runs)."""
        parameters = {"name": name, "parallelism": parallelism, "paused": paused}
        await self._set("upsert", parameters)

    async def all(self) -> list[QueueView]:
        """By name."""
        return [QueueView(**row) for row in await self._database.fetch(self._q["select"], {"name": None})]

    async def get(self, name: str) -> QueueView | None:
        found = await self._database.fetch(self._q["select"], {"name": name})
        return QueueView(**found[0]) if found else None

    async def delete(self, name: str) -> bool:
        """Remove the queue; what still waits for its turn in it is cancelled, what has begun goes on. Was it there?"""

        async def work(connection: AsyncConnection[Any]) -> bool | None:
            await connection.execute(self._q["lock"], {"name": name})
            asked = {"name": name, "batch_max": CANCEL_MAX}
            if (await connection.execute(self._q["cancel_queued"], asked)).rowcount == CANCEL_MAX:
                return None
            return (await connection.execute(self._q["delete"], {"name": name})).rowcount == 1

        # What is cancelled stays so, should a later transaction fail: the sender asks once more.
        for _ in range(CANCELS_MAX):
            if (was_there := await self._database.run(work)) is not None:
                return was_there
        raise TimeoutError(f"queue {name!r} is filled as fast as it is emptied")

    async def pause(self, name: str) -> None:
        """Nothing of the queue begins from now on; calls under way go on. An unknown queue is made."""
        await self._set("set_paused", {"name": name, "paused": True})

    async def resume(self, name: str) -> None:
        """What was in goes on, and others come in. An unknown queue is made."""
        await self._set("set_paused", {"name": name, "paused": False})

    async def enter_in(self, connection: AsyncConnection[Any], names: Sequence[str]) -> None:
        """Let messages in as far as their queues have room, or park them, as part of a transaction."""
        found = await rows(connection, self._q["enter"], {"queues": sorted(names)})
        if keys := [row["key"] for row in found]:
            await connection.execute(self._q["touch"], {"keys": keys})

    async def _set(self, statement: str, parameters: Mapping[str, Any]) -> None:
        """Change the queue, and bring its messages into line under the same lock: they are parked, or come in."""

        async def work(connection: AsyncConnection[Any]) -> None:
            await connection.execute(self._q[statement], parameters)
            await self.enter_in(connection, [parameters["name"]])

        await self._database.run(work)
