"""Dead letters: messages that failed for good, to be looked at, published once more, or removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.relay.store.database import Database
from services.relay.vault import Vault
from services.relay.wire.filters import Filters
from services.relay.wire.views import LetterView


class Letters:
    """Pages are the newest first, of `filters.count` letters or PAGE_MAX; their cursor is None at the end."""

    def __init__(self, database: Database, vault: Vault, messages: Any) -> None:
        self._database = database
        self._vault = vault
        self._messages = messages

    async def list(self, filters: Filters) -> tuple[list[LetterView], str | None]:
        raise NotImplementedError

    async def get(self, letter_id: str) -> LetterView | None:
        raise NotImplementedError

    async def delete(self, letter_id: str) -> bool:
        """Was it there?"""
        raise NotImplementedError

    async def delete_many(self, filters: Filters) -> tuple[int, str | None]:
        """Remove what matches (ids are `filters.dlq_ids`); how many, and where to go on when there is more."""
        raise NotImplementedError

    async def retry(self, letter_id: str, overrides: Mapping[str, str]) -> str | None:
        """Publish it once more with `overrides` (publish headers) over its own; the new message's id, None when unknown.

        Raises `InvalidRequestError`, `UnreadableError`; the letter then stays.
        """
        raise NotImplementedError

    async def retry_many(self, filters: Filters) -> tuple[list[str], str | None]:
        """Publish what matches once more; the new ids, and where to go on. Letters that cannot be read stay."""
        raise NotImplementedError
