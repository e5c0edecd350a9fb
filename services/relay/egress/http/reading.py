"""One answer during its arrival: parsed by llhttp (RFC 9112), bounded, and handed over whole or piece by piece.

Parsing is strict. If it fails, the received bytes are parsed once more after `rewriting`: the call was made and paid
for, so an understandable answer counts. Its connection is not reused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from services.relay.egress.http.allowance import Allowance
from services.relay.egress.http.faults import NoAnswerError, StaleError
from services.relay.egress.http.following import Following
from services.relay.egress.http.response import Response
from services.relay.egress.http.rewriting import Rewriting

# The limit on heads, trailers and chunk extensions of an answer, in bytes. Real heads have 1 to 8 KB.
HEAD_BYTES_MAX = 64 * 1024
# The additional bytes allowed per byte of the body. With one byte a chunk it has 5, or 12 where a server pads the size
# to 8 digits.
OVERHEAD_FACTOR_MAX = 16
# The bytes held here of an answer that is read piece by piece before the other side must wait.
AHEAD_BYTES_MAX = 256 * 1024


class Reading:
    """`response` is set when the answer is complete, or when `allowance` requires it to be handed over.

    `pace(True)` asks the other side to pause, `pace(False)` to continue.
    """

    __slots__ = (
        "_allowance",
        "_body",
        "_chunked",
        "_error",
        "_headers",
        "_keep",
        "_malformed",
        "_method",
        "_moved",
        "_pace",
        "_parser",
        "_paused",
        "_pieces",
        "_received",
        "_rewriting",
        "_size",
        "_status",
        "_to_end",
        "complete",
        "response",
        "streaming",
    )  # fmt: skip

    def __init__(self, method: str, allowance: Allowance, *, pace: Callable[[bool], None]) -> None:
        self.response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.complete = False
        self._method = method
        self._allowance = allowance
        self._pace = pace
        # All bytes received, while they are few and may still prove malformed.
        self._pieces: list[bytes] = []
        self._received = 0
        self._rewriting: Rewriting | Following | None = None
        self._keep = self._malformed = self.streaming = self._paused = False
        self._begin()
        self._error: Exception | None = None
        self._moved: asyncio.Future[None] | None = None

    @property
    def clean(self) -> bool:
        """The answer is complete and read, no bytes followed it, and the other side accepts another request."""
        return self.complete and self._keep and not self._paused

    def feed(self, data: bytes) -> None:
        """Take bytes from the other side."""
        if self._parser is None or self.complete:
            # Bytes after an answer could be mistaken for the answer to the next request.
            self._keep = False
            return
        # This is one function, as it runs for each answer.
        if not self._received:
            self._malformed = not data.startswith(b"H")  # an empty line, which the parser skips
        if self._received < HEAD_BYTES_MAX and self._rewriting is None:
            self._pieces.append(data)
        else:
            self._pieces.clear()
            if isinstance(self._rewriting, Following) and self._received >= HEAD_BYTES_MAX and self._rewriting.abreast:
                self._rewriting = None
        self._received += len(data)
        try:
            self._parser.feed_data(data if self._rewriting is None else self._rewriting.feed(data))
        except (HttpParserUpgrade, HttpParserError, ValueError) as error:
            self._broken(error)
        if self._received - self._size > HEAD_BYTES_MAX and not self.complete:
            self._check_overhead()

    def closed(self, error: Exception | None, *, ended: bool, early: bool) -> None:
        """The connection is gone. `ended`: the other side announced the end. `early`: the request was sent on a reused
        connection, and the end came so soon that the connection may have been closed before.
        """
        self._keep = False
        if self.complete:
            return
        if ended and error is None and self._status and self._to_end:
            self._end()
        elif early and not self._received:
            self._fail(StaleError("the connection, kept from before, was closed before an answer came"))
        else:
            where = "in the middle of the answer" if self._status else "before an answer came"
            self._fail(NoAnswerError(f"the connection was closed {where}" + (f": {error}" if error else "")))

    def _begin(self) -> None:
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._status = self._size = 0
        self._headers: list[tuple[str, str]] = []
        self._body: bytes | bytearray = b""
        self._to_end = True
        self._chunked = False

    def _check_overhead(self) -> None:
        room = HEAD_BYTES_MAX + OVERHEAD_FACTOR_MAX * self._size
        if self._received - self._size > room:
            self._fail(NoAnswerError(f"the answer has more than {room} bytes without a body's"))

    def _broken(self, error: Exception) -> None:
        """The parser refuses the received bytes. They are parsed once more after `rewriting`,
        unless they already were.
        """
        if isinstance(error, HttpParserUpgrade):
            self._fail(NoAnswerError("the destination switched to another protocol without a request"))
        elif self._pieces and not self.complete and not self.streaming:
            self._parse_again()
        elif self._pieces and not self.complete and self._chunked:
            self._follow()
        else:
            self._fail(NoAnswerError(f"the answer is not valid HTTP: {error}"))

    def _parse_again(self) -> None:
        """Parse once more from the first byte: malformed parts show in an answer's head or its
        first chunks, or never.
        """
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._malformed = True
        self._rewriting = Rewriting()
        self._begin()
        assert self._parser is not None
        try:
            self._parser.feed_data(self._rewriting.feed(data))
        except (HttpParserUpgrade, HttpParserError, ValueError) as error:
            self._broken(error)

    def _follow(self) -> None:
        """Parse once more an answer that is handed over already, with the bytes that were not."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        if not data or self._parser is None:
            return
        self._rewriting = following = Following(self, self._size)
        self._parser = following.parser
        try:
            self._parser.feed_data(following.feed(data))
        except (HttpParserUpgrade, HttpParserError, ValueError) as error:
            self._broken(error)

    def mark_malformed(self) -> None:
        """Mark the answer that `_follow` continues as malformed."""
        self._malformed = True

    # Callbacks of the parser.

    def on_message_begin(self) -> None:
        if self.complete:
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.lower()
        if lowered == b"transfer-encoding":
            self._coded(value.lower().strip())
        elif lowered == b"content-length":
            self._to_end = False
            if len(value) > 4:  # fewer digits are below 10,000 bytes, which any answer may have
                self._allowance.announced(value)
        if not self._status:  # otherwise it is a trailer
            self._headers.append(
                (name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape").strip())
            )

    def _coded(self, coding: bytes) -> None:
        """Mark any transfer coding but one `chunked` in HTTP/1.1 as malformed. The parser accepts others, but other
        recipients may read them differently.
        """
        assert self._parser is not None
        if coding != b"chunked" or self._status or self._chunked or self._parser.get_http_version() != "1.1":
            self._malformed = True
        self._chunked = coding.rpartition(b",")[2].strip() == b"chunked"
        self._to_end = not self._chunked

    def on_headers_complete(self) -> None:
        status = 0 if self._parser is None else self._parser.get_status_code()
        if status < 200:
            if status < 100:
                self._fail(NoAnswerError(f"the answer is not valid HTTP: status {status:03}"))
            return
        self._status = status
        if not self._chunked:
            self._pieces.clear()  # a body without chunks cannot be malformed
        if self._method == "HEAD" or (self._method == "CONNECT" and status < 300):
            # The answer has no body, whatever its headers say (RFC 9112, section 6.3). The parser does not know that.
            self._end()

    def on_body(self, piece: bytes) -> None:
        if self.complete:
            return
        self._size += len(piece)
        if not self._body:
            self._body = piece
        else:
            # Nearly every answer is one piece. A server that sends one byte per chunk must not cost one object each.
            self._body = bytearray(self._body) if isinstance(self._body, bytes) else self._body
            self._body += piece
        if self.streaming:
            self._move()
        elif self._allowance.exceeded(self._size) and not self.response.done():
            self.streaming = True
            if self._chunked and self._rewriting is None and self._received < HEAD_BYTES_MAX:
                # There was no memory for a second parse. It must not start here, inside the parser's callback.
                asyncio.get_running_loop().call_soon(self._follow)
            else:
                self._pieces.clear()
            # The reader may first have to wait for memory, and the kernel's buffer is the better place meanwhile.
            self._pause_reading()
            start = bytearray(self._taken())
            self.response.set_result(Response(self._status, tuple(self._headers), start, self._rest()))
        if self.streaming and len(self._body) > AHEAD_BYTES_MAX:
            self._pause_reading()

    def on_message_complete(self) -> None:
        if self.complete or self._parser is None:
            return
        if not self._status:
            # A 1xx answer. Any number of these may come before the answer (RFC 9110, section 15.2).
            self._headers = []
            self._to_end = True
            self._chunked = False
            return
        self._keep = self._parser.should_keep_alive() and not self._malformed
        self._end()

    def _end(self) -> None:
        self.complete = True
        # The parser refers to this object too. Without the reference cycle both are freed at once.
        self._parser = None
        if self.streaming:
            self._move()
        elif not self.response.done():
            self.response.set_result(Response(self._status, tuple(self._headers), self._taken()))

    def _fail(self, error: NoAnswerError) -> None:
        self._parser = None
        self._pieces.clear()
        if self.complete:
            self._keep = False
            return
        self._error = error
        if self.streaming:
            self._move()
        elif not self.response.done():
            self.response.set_exception(error)

    def _taken(self) -> bytes:
        body, self._body = self._body, b""
        return bytes(body)

    def _move(self) -> None:
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    def _pause_reading(self) -> None:
        if not self._paused:
            self._paused = True
            self._pace(True)

    def _resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._pace(False)

    async def _rest(self) -> AsyncIterator[bytes]:
        while True:
            if self._body:
                self._pause_reading()  # see on_body
                yield self._taken()
            elif self.complete:
                self._resume_reading()
                return
            elif self._error is not None:
                raise self._error
            else:
                self._resume_reading()
                self._moved = asyncio.get_running_loop().create_future()
                await self._moved
