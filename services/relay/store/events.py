"""What happened to messages, the newest first."""

from __future__ import annotations

from services.relay.store.database import Database
from services.relay.wire.filters import Filters
from services.relay.wire.views import AttemptView, EventView


class Events:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, filters: Filters) -> tuple[list[EventView], str | None]:
        """A page of `filters.count` events or PAGE_MAX, and the next page's cursor, None at the end."""
        raise NotImplementedError

    async def attempts(self, message_id: str) -> tuple[AttemptView, ...]:
        """The message's attempts, the first first."""
        raise NotImplementedError
