"""Tokens of the relay's callers. Only their hashes are stored."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from services.relay.store.database import Database, queries


@dataclass(frozen=True)
class Token:
    """`writes` False: the token may only read. `publishes_per_second` None: the token has no limit of its own."""

    name: str
    writes: bool
    publishes_per_second: int | None
    created_at: datetime | None = None
    revoked_at: datetime | None = None


class TokenExistsError(Exception):
    """The name is taken, by a valid or a revoked token."""


class Tokens:
    """A revoked token keeps its name, so that log entries stay unambiguous."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._q = queries("tokens")

    async def create(self, name: str, *, writes: bool, publishes_per_second: int | None = None) -> str:
        """Create a token and return it, this once. Raises `TokenExistsError`."""
        token = f"tdr_{secrets.token_urlsafe(32)}"
        parameters = {
            "name": name,
            "sha256": hash_token(token),
            "writes": writes,
            "publishes_per_second": publishes_per_second,
        }
        if await self._database.execute(self._q["create"], parameters) == 0:
            raise TokenExistsError(f"there is or was a token named {name}")
        return token

    async def all(self) -> list[Token]:
        """All tokens by name, including revoked ones."""
        return [Token(**row) for row in await self._database.fetch(self._q["all"], {})]

    async def revoke(self, name: str) -> bool:
        """Revoke a token. Returns whether a valid one existed."""
        return await self._database.execute(self._q["revoke"], {"name": name}) == 1

    async def find(self, token: str) -> Token | None:
        """The valid token with this text."""
        found = await self._database.fetch(self._q["find"], {"sha256": hash_token(token)})
        return Token(**found[0]) if found else None


def hash_token(token: str) -> bytes:
    """SHA-256 is sufficient for 256 random bits, and fast, as each request needs it."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
