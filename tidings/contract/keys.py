"""API keys: made here, shown once, kept as a hash."""

from __future__ import annotations

import hashlib
import secrets


def new_api_key() -> str:
    """256 random bits; the prefix lets scanners of leaked secrets know it."""
    return f"tdg_{secrets.token_urlsafe(32)}"


def hash_api_key(key: str) -> bytes:
    """SHA-256: enough for 256 random bits, and quick, as it is done at each request."""
    return hashlib.sha256(key.encode()).digest()
