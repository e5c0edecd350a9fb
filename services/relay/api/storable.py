"""Text that the database cannot store is refused here, as it would fail the transaction of other requests too. Pure."""

from __future__ import annotations

from services.relay.protocol.invalid import InvalidRequestError


def check_text(name: str, text: str) -> None:
    """Postgres stores neither NUL nor lone surrogates (from bytes that were not UTF-8). Raises
    `InvalidRequestError`.
    """
    if "\0" in text:
        raise InvalidRequestError(f"{name} holds a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidRequestError(f"{name} is not UTF-8") from None
