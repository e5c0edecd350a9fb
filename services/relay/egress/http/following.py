"""An answer that was handed over before it could turn out to be odd, parsed on as rewritten, without being kept."""

from __future__ import annotations

from typing import Protocol

from httptools import HttpResponseParser

from services.relay.egress.http.rewriting import Rewriting


class Reader(Protocol):
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_body(self, piece: bytes) -> None: ...
    def on_message_complete(self) -> None: ...
    def was_odd(self) -> None: ...


class Following:
    """What a new parser of an answer calls, which begins with the first byte: `reader` gets what follows the first `skip`
    bytes of the body. `plain`: nothing was odd so far, so that the connection may be used again.
    """

    def __init__(self, reader: Reader, skip: int) -> None:
        self.parser = HttpResponseParser(self)
        self.plain = True
        self._reader = reader
        self._skip = skip
        self._behind_head = False
        self._rewriting = Rewriting()
        # What came and was not written yet.
        self._raw = bytearray()

    @property
    def abreast(self) -> bool:
        """Whether the parser is where it would be without rewriting."""
        return self.plain and not self._raw

    def feed(self, data: bytes) -> bytes:
        """What is to be parsed instead. Raises `ValueError` for what cannot be understood."""
        written = self._rewriting.feed(data)
        if self.plain:
            self._raw += data
            self.plain = self._raw.startswith(written)
            del self._raw[: len(written)]
        return written

    # What the parser calls. Of the head all is known.

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
                self._reader.was_odd()
            self._reader.on_message_complete()
