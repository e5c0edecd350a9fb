"""The continued parsing of an answer that was handed over before it proved malformed. It is rewritten without being
kept.
"""

from __future__ import annotations

from typing import Protocol

from httptools import HttpResponseParser

from services.relay.egress.http.rewriting import Rewriting


class Reader(Protocol):
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_body(self, piece: bytes) -> None: ...
    def on_message_complete(self) -> None: ...
    def mark_malformed(self) -> None: ...


class Following:
    """The callbacks of a new parser, which starts at the first byte of the answer. `reader` gets the body after its
    first `skip` bytes. `plain`: nothing was malformed so far, so the connection may be reused.
    """

    def __init__(self, reader: Reader, skip: int) -> None:
        self.parser = HttpResponseParser(self)
        self.plain = True
        self._reader = reader
        self._skip = skip
        self._behind_head = False
        self._rewriting = Rewriting()
        # Bytes received but not rewritten yet.
        self._raw = bytearray()

    @property
    def abreast(self) -> bool:
        """Whether the parser is at the same position as without rewriting."""
        return self.plain and not self._raw

    def feed(self, data: bytes) -> bytes:
        """The bytes to parse instead. Raises `ValueError` for bytes that cannot be understood."""
        written = self._rewriting.feed(data)
        if self.plain:
            self._raw += data
            self.plain = self._raw.startswith(written)
            del self._raw[: len(written)]
        return written

    # Callbacks of the parser. The head is known already.

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._behind_head:
            self._reader.on_header(name, value)

    def on_body(self, piece: bytes) -> None:
        self._behind_head = True
        if self._skip:
            skipped = min(self._skip, len(piece))
            self._skip -= skipped
            piece = piece[skipped:]
        if piece:
            self._reader.on_body(piece)

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() >= 200:
            if not self.plain:
                self._reader.mark_malformed()
            self._reader.on_message_complete()
