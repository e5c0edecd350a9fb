"""Encryption at rest of what senders entrust to us: forwarded headers hold other services' keys."""

from __future__ import annotations

from typing import Any

import orjson
from cryptography.fernet import Fernet, MultiFernet


class Vault:
    """Seals JSON; several keys make rotation possible: the first seals, all open."""

    def __init__(self, keys: str) -> None:
        """`keys`: Fernet keys separated by commas. Raises `ValueError` when one is none."""
        self._fernet = MultiFernet([Fernet(key.strip()) for key in keys.split(",") if key.strip()])

    def seal(self, content: dict[str, Any]) -> bytes:
        return self.seal_bytes(orjson.dumps(content))

    def seal_bytes(self, content: bytes) -> bytes:
        """Of JSON that is written already; `open` gives back what it says."""
        return self._fernet.encrypt(content)

    def open(self, sealed: bytes) -> dict[str, Any]:
        """Raises `cryptography.fernet.InvalidToken` when no key fits."""
        content: dict[str, Any] = orjson.loads(self._fernet.decrypt(sealed))
        return content
