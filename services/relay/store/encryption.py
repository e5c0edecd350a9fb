"""Encryption at rest of senders' secrets: forwarded headers contain keys of other services."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Any

import orjson
from cryptography.fernet import Fernet, MultiFernet


class Encryption:
    """Encrypts JSON. Several keys allow rotation: the first encrypts, all decrypt."""

    def __init__(self, keys: str) -> None:
        """`keys`: Fernet keys separated by commas. Raises `ValueError` when one is not a Fernet key."""
        self._fernet = MultiFernet([Fernet(key.strip()) for key in keys.split(",") if key.strip()])

    def seal(self, content: dict[str, Any]) -> bytes:
        return self.seal_bytes(as_json(content))

    def seal_bytes(self, content: bytes) -> bytes:
        """Encrypt serialised JSON. `open` returns its values."""
        return self._fernet.encrypt(content)

    def open(self, sealed: bytes) -> dict[str, Any]:
        """Raises `cryptography.fernet.InvalidToken` when no key fits."""
        text = self._fernet.decrypt(sealed)
        content: dict[str, Any]
        try:
            content = orjson.loads(text)
        except orjson.JSONDecodeError:
            content = json.loads(text)
        return content


def as_json(content: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """Serialise as JSON. Lone surrogates, which represent the bytes of a header that is not UTF-8, are escaped. orjson
    cannot do that, but is faster, so the other serialiser is used only for such values.
    """
    try:
        return orjson.dumps(content, default=default)
    except orjson.JSONEncodeError:
        return json.dumps(content, default=lambda value: _plain(value, default)).encode()


def _plain(value: Any, default: Callable[[Any], Any] | None) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if default is None:
        raise TypeError(f"{type(value).__name__} is not JSON")
    return default(value)
