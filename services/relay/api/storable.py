"""Texts that the database cannot hold: refused at the edge, as they would fail the transaction of others too. Pure."""

from __future__ import annotations

from services.relay.protocol.invalid import InvalidRequestError


def check_text(name: str, text: str) -> None:
    """Postgres has neither NUL nor half surrogate pairs (of bytes that were no UTF-8). Raises `InvalidRequestError`."""
    if "\0" in text:
        raise InvalidRequestError(f"{name} holds a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidRequestError(f"{name} is not UTF-8") from None
