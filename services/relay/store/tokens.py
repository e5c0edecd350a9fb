"""Tokens that callers of the relay show. Only their hashes are stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.relay.store.database import Database


@dataclass(frozen=True)
class Token:
    """`writes` False: may only read. `publishes_per_second` None: no limit of its own."""

    name: str
    writes: bool
    publishes_per_second: int | None
    created_at: datetime | None = None
    revoked_at: datetime | None = None


class TokenExistsError(Exception):
    """The name is taken, by a valid token or a revoked one."""


class Tokens:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, name: str, *, writes: bool, publishes_per_second: int | None = None) -> str:
        """Make a token and answer it, this once. Raises `TokenExistsError`."""
        raise NotImplementedError

    async def all(self) -> list[Token]:
        """By name, with those that are revoked."""
        raise NotImplementedError

    async def revoke(self, name: str) -> bool:
        """Was there a valid one?"""
        raise NotImplementedError

    async def find(self, token: str) -> Token | None:
        """The valid token that was shown."""
        raise NotImplementedError
