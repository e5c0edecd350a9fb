"""Text that the database cannot store is refused, as it would fail the transaction of other requests too. Pure."""

from __future__ import annotations

from services.relay.protocol.invalid import InvalidRequestError


def is_storable(value: str) -> bool:
    """Whether the database accepts the text: it has no NUL, and no bytes that were not UTF-8 (aiohttp keeps them)."""
    if "\0" in value:
        return False
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def check_text(name: str, text: str) -> None:
    """Raises `InvalidRequestError`, naming what the text is."""
    if not is_storable(text):
        raise InvalidRequestError(f"{name} is not UTF-8, or holds a NUL")
