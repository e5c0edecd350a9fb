"""The two keys of the signature: `current` signs, receivers take both. Shared by all processes, sealed in the database."""

from __future__ import annotations

from dataclasses import dataclass

from services.relay.store.database import Database
from services.relay.vault import Vault


@dataclass(frozen=True)
class KeyPair:
    current: str
    next: str


class SigningKeys:
    """`pair` is what this process signs with; `refresh`, called by a loop, brings what another process rotated."""

    def __init__(self, database: Database, vault: Vault, seed: KeyPair) -> None:
        """`seed`: the environment's keys, stored when there are none yet; after that the stored ones count."""
        self._database = database
        self._vault = vault
        self.pair = seed

    async def refresh(self) -> KeyPair:
        """Read the stored keys, or store the seed. Raises `UnreadableError`."""
        raise NotImplementedError

    async def read(self) -> KeyPair:
        """The same as `refresh`."""
        return await self.refresh()

    async def rotate(self) -> KeyPair:
        """The next key becomes the current one, and a new one the next. Raises `UnreadableError`."""
        raise NotImplementedError
