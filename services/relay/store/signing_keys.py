"""The two keys of the signature. `current` signs, and receivers accept both. All processes share them, encrypted in the
database.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.fernet import InvalidToken
from psycopg import AsyncConnection

from services.relay.store.database import Database, Row, queries, rows
from services.relay.store.encryption import Encryption
from services.relay.store.sealing import UnreadableError


@dataclass(frozen=True)
class KeyPair:
    current: str
    next: str


class SigningKeys:
    """`pair` is what this process signs with. A loop calls `refresh`, which reads the keys that another process
    rotated.
    """

    def __init__(self, database: Database, encryption: Encryption, seed: KeyPair) -> None:
        """`seed`: the environment's keys. They are stored when no keys exist; after that the stored ones are used."""
        self._database = database
        self._encryption = encryption
        self._seed = seed
        self._q = queries("signing_keys")
        self.pair = seed

    async def refresh(self) -> KeyPair:
        """Read the stored keys, or store the seed. Raises `UnreadableError`."""
        found = await self._database.fetch(self._q["read"], {})
        if not found:
            await self._database.execute(self._q["seed"], {"sealed": self._encryption.seal(asdict(self._seed))})
            found = await self._database.fetch(self._q["read"], {})
        self.pair = self._opened(found[0])
        return self.pair

    async def rotate(self) -> KeyPair:
        """Make the next key the current one, and create a new next key. Raises `UnreadableError`."""
        await self.refresh()

        async def work(connection: AsyncConnection[Any]) -> KeyPair:
            [row] = await rows(connection, self._q["lock"], {})
            pair = KeyPair(self._opened(row).next, f"sig_{secrets.token_urlsafe(24)}")
            await connection.execute(self._q["rotate"], {"sealed": self._encryption.seal(asdict(pair))})
            return pair

        self.pair = await self._database.run(work)
        return self.pair

    def _opened(self, row: Row) -> KeyPair:
        try:
            return KeyPair(**self._encryption.open(row["sealed"]))
        except InvalidToken:
            raise UnreadableError(
                "the signing keys cannot be decrypted: their key is not in RELAY_ENCRYPTION_KEYS"
            ) from None
