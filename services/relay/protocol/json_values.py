"""Counts the values of a JSON text before they are created: an empty array of three bytes becomes an object of 64
bytes. Pure.
"""

from __future__ import annotations

import re

from services.relay.protocol.invalid import InvalidRequestError

# A smaller text has at most some 20 MB of values, and needs no check.
UNSEEN_BYTES_MAX = 1024 * 1024
# A thousand messages with a thousand headers each.
VALUES_MAX = 1_000_000
# A string with any content, or a character in front of a value. The quantifiers are possessive, as others keep a
# backtracking position for each repetition.
_QUOTE = ord('"')
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{,]', re.DOTALL)


def check_values(text: bytes | bytearray) -> None:
    """Raises `InvalidRequestError` for more than VALUES_MAX."""
    if sum(text.count(mark) for mark in b"[{,") <= VALUES_MAX:
        return
    # Most of these characters are in strings, which are bodies.
    values = 0
    for token in _TOKEN.finditer(text):
        values += text[token.start()] != _QUOTE
        if values > VALUES_MAX:
            raise InvalidRequestError(f"the JSON has more than {VALUES_MAX} values")
