"""Queues: their parallelism, and what pausing them does to the messages that are in them."""

from __future__ import annotations

from services.relay.store.database import Database
from services.relay.wire.views import QueueView


class Queues:
    """All of relay.queues but `enter`, which lets messages in."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def upsert(self, name: str, parallelism: int, paused: bool | None = None) -> None:
        """Make the queue, or change it; `paused` None leaves that as it is (a new queue runs)."""
        raise NotImplementedError

    async def all(self) -> list[QueueView]:
        """By name."""
        raise NotImplementedError

    async def get(self, name: str) -> QueueView | None:
        raise NotImplementedError

    async def delete(self, name: str) -> bool:
        """Remove the queue; what still waits in it to get its turn is cancelled, what has begun goes on. Was it there?"""
        raise NotImplementedError

    async def pause(self, name: str) -> None:
        """Nothing of the queue begins from now on; calls under way go on. An unknown queue is made."""
        raise NotImplementedError

    async def resume(self, name: str) -> None:
        """An unknown queue is made."""
        raise NotImplementedError
