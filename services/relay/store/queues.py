"""Queues: their parallelism, and the effect of a pause on the messages in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection

from services.relay.protocol.views import QueueView
from services.relay.store.database import Database, queries, rows

# Messages of one transaction. It locks the queue for some 100 ms, and publishers to the queue wait for it.
CANCEL_MAX = 2000
# The most transactions of one request: ten million messages.
CANCELS_MAX = 5000


class Queues:
    """All access to relay.queues. A queue is created on first use, with a parallelism of 1."""

    def __init__(self, database: Database, *, discard: Callable[[Sequence[str]], None] = lambda _keys: None) -> None:
        """`discard` receives the keys of stored bodies that may have lost their last reference, after the commit."""
        self._database = database
        self._discard = discard
        self._q = queries("queues")

    async def upsert(self, name: str, parallelism: int, paused: bool | None = None) -> None:  # noqa: FBT001  protocol
        """Create the queue or change it. `paused` None keeps the state; a new queue is not paused."""
        parameters = {"name": name, "parallelism": parallelism, "paused": paused}
        await self._set("upsert", parameters)

    async def all(self) -> list[QueueView]:
        """All queues, by name."""
        return [QueueView(**row) for row in await self._database.fetch(self._q["select"], {"name": None})]

    async def get(self, name: str) -> QueueView | None:
        found = await self._database.fetch(self._q["select"], {"name": name})
        return QueueView(**found[0]) if found else None

    async def delete(self, name: str) -> bool:
        """Remove the queue. Messages that wait for a slot are cancelled; started ones continue. Returns whether it
        existed.
        """

        async def work(connection: AsyncConnection[Any]) -> tuple[list[str], bool | None]:
            await connection.execute(self._q["lock"], {"name": name})
            asked = {"name": name, "batch_max": CANCEL_MAX}
            cancelled = await rows(connection, self._q["cancel_queued"], asked)
            keys = [row["body_key"] for row in cancelled if row["body_key"]]
            if len(cancelled) == CANCEL_MAX:
                return keys, None
            return keys, (await connection.execute(self._q["delete"], {"name": name})).rowcount == 1

        # Committed cancellations stay if a later transaction fails. The sender then repeats the request.
        for _ in range(CANCELS_MAX):
            keys, was_there = await self._database.run(work)
            self._discard(keys)
            if was_there is not None:
                return was_there
        raise TimeoutError(f"queue {name!r} is filled as fast as it is emptied")

    async def pause(self, name: str) -> None:
        """Start no further message of the queue. Calls in flight continue. An unknown queue is created."""
        await self._set("set_paused", {"name": name, "paused": True})

    async def resume(self, name: str) -> None:
        """Resume: messages with a slot continue, and others enter. An unknown queue is created."""
        await self._set("set_paused", {"name": name, "paused": False})

    async def enter_in(self, connection: AsyncConnection[Any], names: Sequence[str]) -> None:
        """Let messages enter as far as their queues have free slots, or keep them out, within a transaction."""
        found = await rows(connection, self._q["enter"], {"queues": sorted(names)})
        if keys := [row["key"] for row in found]:
            await connection.execute(self._q["touch"], {"keys": keys})

    async def _set(self, statement: str, parameters: Mapping[str, Any]) -> None:
        """Change the queue and adjust its messages under the same lock: they are kept out, or enter."""

        async def work(connection: AsyncConnection[Any]) -> None:
            await connection.execute(self._q[statement], parameters)
            await self.enter_in(connection, [parameters["name"]])

        await self._database.run(work)
