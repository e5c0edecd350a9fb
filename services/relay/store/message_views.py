"""Messages as they are shown to those who ask, and the choice of those to be cancelled by filters."""

from __future__ import annotations

from services.relay.store.database import Database
from services.relay.vault import Vault
from services.relay.wire.filters import Filters
from services.relay.wire.views import MessageView


class MessageViews:
    """Reads only. A message that no key opens is shown without its headers."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def get(self, message_id: str, keep_seconds: float) -> MessageView | None:
        """The message with its attempts and its gate, until `keep_seconds` after its end; None once it is cancelled."""
        raise NotImplementedError

    async def select_ids(self, filters: Filters, limit: int) -> list[str]:
        """Up to `limit` messages that match and have not ended, the oldest first."""
        raise NotImplementedError
