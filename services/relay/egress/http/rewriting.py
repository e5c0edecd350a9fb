"""Rewrites an answer that the strict parser refuses into an equivalent one that it accepts (RFC 9112). Pure.

Only unambiguous text is rewritten. Everything else passes unchanged, and the parser refuses it. A connection with a
rewritten answer must not be reused: another recipient may have seen a different end of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_BEGINNING = b"HTTP/1."
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [0-9]{3}(?: [^\r]*)?")
# A size, followed by optional white space or an extension, which is not needed. 16 digits are 64 bits.
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r]*)?")
_CODING, _LENGTH = b"transfer-encoding", b"content-length"

_Field = tuple[bytes, bytes]


class Rewriting:
    """`feed` takes the bytes in pieces, from the answer's first byte on, and returns the bytes to parse instead."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._lines: list[bytes] = []
        self._left = 0
        # The parser of the next part of the answer. It takes the part from the buffer; None: the part is incomplete.
        self._next: Callable[[], bytes | None] = self._status

    def feed(self, piece: bytes) -> bytes:
        """Raises `ValueError` for bytes that cannot be understood."""
        self._buffer += piece
        written = bytearray()
        while (part := self._next()) is not None:
            written += part
        return bytes(written)

    def _status(self) -> bytes | None:
        line = self._line()
        if line == b"":
            return b""
        # Bytes that are not HTTP are reported at once: their sender, perhaps an SSH server, waits for an answer.
        beginning = bytes(self._buffer[: len(_BEGINNING)])
        if line is None and (beginning == b"\r" or _BEGINNING.startswith(beginning)):
            return None
        if line is None or not _STATUS_LINE.fullmatch(line):
            raise ValueError("it does not begin with HTTP/1.1 and a status")
        self._lines = [line]
        self._next = self._head
        return b""

    def _head(self) -> bytes | None:
        line = self._line()
        if line:
            self._lines.append(line)
        if line != b"":
            return None if line is None else b""
        first, *lines = self._lines
        fields, chunked = _framed(_fields(lines))
        # Another head follows a 1xx.
        final = not first[len(_BEGINNING) :].startswith((b"0 1", b"1 1"))
        self._next = self._status if not final else self._size if chunked else self._rest
        return b"".join([first, b"\r\n", *[name + b": " + value + b"\r\n" for name, value in fields], b"\r\n"])

    def _size(self) -> bytes | None:
        line = self._line()
        if line is None:
            return None
        found = _CHUNK_SIZE.fullmatch(line)
        if found is None:
            raise ValueError("the size of a chunk is not a number")
        self._left = int(found[1], 16)
        self._next = self._chunk if self._left else self._trailer
        return found[1] + b"\r\n"

    def _chunk(self) -> bytes | None:
        piece = bytes(self._buffer[: self._left])
        del self._buffer[: len(piece)]
        self._left -= len(piece)
        if not self._left:
            self._next = self._chunk_end
        return piece or None

    def _chunk_end(self) -> bytes | None:
        line = self._line()
        if line:
            raise ValueError("a chunk is longer than its size")
        if line is not None:
            self._next = self._size
        return None if line is None else b"\r\n"

    def _trailer(self) -> bytes | None:
        """Trailers are left out: no recipient reads them, and a length among them is one thing that parsers refuse."""
        line = self._line()
        if line == b"":
            self._next = self._rest
            return b"\r\n"
        return None if line is None else b""

    def _rest(self) -> bytes | None:
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest or None

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            return None
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        self._searched = 0
        return line


def _fields(lines: Sequence[bytes]) -> list[_Field]:
    """Header fields: names without white space before the colon (section 5.1), values with continued lines joined
    (section 5.2).
    """
    fields: list[_Field] = []
    for line in lines:
        if not line.startswith((b" ", b"\t")):
            name, colon, value = line.partition(b":")
            if not colon:
                raise ValueError("a header has no colon")
            fields.append((name.rstrip(b" \t"), value.strip(b" \t")))
        elif fields:
            name, value = fields.pop()
            fields.append((name, (value + b" " + line.strip(b" \t")).strip(b" ")))
        else:
            raise ValueError("a continued line continues nothing")
    return fields


def _framed(fields: Sequence[_Field]) -> tuple[list[_Field], bool]:
    """`fields` with a single statement of the body's end, and whether the body is chunked (section 6.3).

    A transfer coding overrides lengths, equal lengths count as one, and the coding `identity` counts as none (RFC
    2616).
    """
    codings = _listed(fields, _CODING)
    if b"" in codings:
        raise ValueError("a transfer coding has no name")
    codings = [coding for coding in codings if coding != b"identity"]
    lengths = set(_listed(fields, _LENGTH))
    if not codings and (len(lengths) > 1 or not all(length.isdigit() for length in lengths)):
        raise ValueError("the length is not a number, or there are several")
    joined = {_CODING: b", ".join(codings), _LENGTH: b"" if codings else b"".join(lengths)}
    framed: list[_Field] = []
    for name, value in fields:
        lowered = name.lower()
        known = joined.pop(lowered, b"") if lowered in {_CODING, _LENGTH} else value
        if known or lowered not in {_CODING, _LENGTH}:
            framed.append((name, known))
    return framed, codings[-1:] == [b"chunked"]


def _listed(fields: Sequence[_Field], wanted: bytes) -> list[bytes]:
    found = [value for name, value in fields if name.lower() == wanted]
    return [member.strip(b" \t").lower() for value in found for member in value.split(b",")]
