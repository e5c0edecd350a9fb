"""Keeps the relay's tables small and its limits truthful: drops what is old, and mends what a crash left."""

from __future__ import annotations

from services.relay.settings import RelaySettings
from services.relay.store.database import Database


class Janitor:
    """`run_once` is safe in any number of processes: one does it at a time."""

    def __init__(self, database: Database, settings: RelaySettings) -> None:
        raise NotImplementedError

    async def run_once(self) -> int:
        """One round of bounded steps; how many rows and tables it touched."""
        raise NotImplementedError
