"""Cursors of lists: the last item a page showed. Pure."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.storable import is_storable

# The time comes first, unencoded: the vendor's JavaScript client compares cursors by it.
_CURSOR = re.compile(r"([0-9]{1,18})-([A-Za-z0-9_-]{1,400})")


@dataclass(frozen=True)
class Cursor:
    """The last item of a page: its time in Unix microseconds, and its id."""

    time_us: int
    id: str


def encode_cursor(time_us: int, item_id: str) -> str:
    """A text for the next page, opaque to clients."""
    return f"{time_us}-{base64.urlsafe_b64encode(item_id.encode()).decode().rstrip('=')}"


def decode_cursor(text: str) -> Cursor:
    """The values given to `encode_cursor`. Raises `InvalidRequestError`."""
    match = _CURSOR.fullmatch(text)
    item_id = None if match is None else _decoded(match[2])
    if match is None or not item_id or not is_storable(item_id):
        raise InvalidRequestError("invalid cursor: give the one of the page before, unchanged")
    return Cursor(int(match[1]), item_id)


def _decoded(text: str) -> str | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        return None
