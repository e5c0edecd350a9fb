"""How many values a JSON text has, told before they are made: an empty array of three bytes is an object of 64. Pure."""

from __future__ import annotations

import re

from services.relay.protocol.invalid import InvalidRequestError

# Less than this is at most some 20 MB of values, and need not be looked at.
UNSEEN_BYTES_MAX = 1024 * 1024
# A thousand messages with a thousand headers each.
VALUES_MAX = 1_000_000
# A string, whatever is in it, or what comes before a value. Possessive, as a way back is kept for each repetition else.
_QUOTE = ord('"')
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{,]', re.DOTALL)


def check_values(text: bytes | bytearray) -> None:
    """Raises `InvalidRequestError` for more than VALUES_MAX."""
    if sum(text.count(mark) for mark in b"[{,") <= VALUES_MAX:
        return
    # Most of them are in strings, which are bodies.
    values = 0
    for token in _TOKEN.finditer(text):
        values += text[token.start()] != _QUOTE
        if values > VALUES_MAX:
            raise InvalidRequestError(f"the JSON has more than {VALUES_MAX} values")
