"""One answer while it comes in: parsed by llhttp (RFC 9112), bounded, and handed over whole or piece by piece.

It is parsed strictly. When that fails, what came is parsed once more as `rewriting` has it: the call was made and paid for,
so what can be understood is an answer. But its connection is not used again.
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

# Heads, trailers and chunk extensions of an answer have so many bytes at most: real heads have 1 to 8 KB.
HEAD_BYTES_MAX = 64 * 1024
# And so many more for each byte of the body. A byte a chunk has 5, or 12 where a server pads the size to 8 digits.
OVERHEAD_FACTOR_MAX = 16
# So much of an answer that is taken piece by piece lies here before the other side has to wait.
AHEAD_BYTES_MAX = 256 * 1024


class Reading:
    """`response` is set when all of the answer is here, or as much of it as `allowance` says.

    `pace(True)` asks the other side to wait, `pace(False)` to go on.
    """

    __slots__ = (
        "_allowance", "_body", "_chunked", "_error", "_headers", "_keep", "_method", "_moved", "_odd", "_pace",
        "_parser", "_paused", "_pieces", "_received", "_rewriting", "_size", "_status", "_to_end", "complete",
        "response", "streaming",
    )  # fmt: skip

    def __init__(self, method: str, allowance: Allowance, *, pace: Callable[[bool], None]) -> None:
        self.response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.complete = False
        self._method = method
        self._allowance = allowance
        self._pace = pace
        # All that came, while it is little and may turn out to be odd.
        self._pieces: list[bytes] = []
        self._received = 0
        self._rewriting: Rewriting | Following | None = None
        self._keep = self._odd = self.streaming = self._paused = False
        self._begin()
        self._error: Exception | None = None
        self._moved: asyncio.Future[None] | None = None

    @property
    def clean(self) -> bool:
        """The answer is whole and taken, nothing followed it, and the other side will take another request."""
        return self.complete and self._keep and not self._paused

    def feed(self, data: bytes) -> None:
        """What came from the other side."""
        if self._parser is None or self.complete:
            # What follows an answer cannot be trusted to be an answer to what is asked next.
            self._keep = False
            return
        # All in one function, as it is called for each answer.
        if not self._received:
            self._odd = not data.startswith(b"H")  # an empty line, which the parser passes over
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

    def closed(self, error: Exception | None, *, ended: bool, soon: bool) -> None:
        """The connection is gone. `ended`: the other side said that this is the end; `soon`: after sending on a connection
        that had an exchange before, so soon that it may have been closed already.
        """
        self._keep = False
        if self.complete:
            return
        if ended and error is None and self._status and self._to_end:
            self._end()
        elif soon and not self._received:
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
        """The parser refuses what came. It is parsed once more as `rewriting` has it, unless it was already."""
        if isinstance(error, HttpParserUpgrade):
            self._fail(NoAnswerError("the destination switched to another protocol, unasked"))
        elif self._pieces and not self.complete and not self.streaming:
            self._parse_again()
        elif self._pieces and not self.complete and self._chunked:
            self._follow()
        else:
            self._fail(NoAnswerError(f"the answer is no valid HTTP: {error}"))

    def _parse_again(self) -> None:
        """Once, and from the first byte on: what is odd shows in an answer's head or its first chunks, or never."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._odd = True
        self._rewriting = Rewriting()
        self._begin()
        assert self._parser is not None
        try:
            self._parser.feed_data(self._rewriting.feed(data))
        except (HttpParserUpgrade, HttpParserError, ValueError) as error:
            self._broken(error)

    def _follow(self) -> None:
        """The same of an answer that is handed over already, with what was not."""
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

    def was_odd(self) -> None:
        """Of the answer that `_follow` reads on."""
        self._odd = True

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self.complete:
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.lower()
        if lowered == b"transfer-encoding":
            self._coded(value.lower().strip())
        elif lowered == b"content-length":
            self._to_end = False
            if len(value) > 4:  # below 10,000 bytes, which any answer may have
                self._allowance.announced(value)
        if not self._status:  # else a trailer
            self._headers.append(
                (name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape").strip())
            )

    def _coded(self, coding: bytes) -> None:
        """Anything but one `chunked` in HTTP/1.1 the parser takes, yet others may read it otherwise."""
        assert self._parser is not None
        if coding != b"chunked" or self._status or self._chunked or self._parser.get_http_version() != "1.1":
            self._odd = True
        self._chunked = coding.rpartition(b",")[2].strip() == b"chunked"
        self._to_end = not self._chunked

    def on_headers_complete(self) -> None:
        status = 0 if self._parser is None else self._parser.get_status_code()
        if status < 200:
            if status < 100:
                self._fail(NoAnswerError(f"the answer is no valid HTTP: status {status:03}"))
            return
        self._status = status
        if not self._chunked:
            self._pieces.clear()  # of a body without chunks nothing can be odd
        if self._method == "HEAD" or (self._method == "CONNECT" and status < 300):
            # Without a body whatever its headers say (RFC 9112, section 6.3), which the parser does not know.
            self._end()

    def on_body(self, piece: bytes) -> None:
        if self.complete:
            return
        self._size += len(piece)
        if not self._body:
            self._body = piece
        else:
            # Nearly every answer is one piece; a server that sends a byte a chunk must not cost an object for each.
            self._body = bytearray(self._body) if isinstance(self._body, bytes) else self._body
            self._body += piece
        if self.streaming:
            self._move()
        elif self._allowance.exceeded(self._size) and not self.response.done():
            self.streaming = True
            if self._chunked and self._rewriting is None and self._received < HEAD_BYTES_MAX:
                # There was no room for what is needed for a second look. Not here, in the middle of what came.
                asyncio.get_running_loop().call_soon(self._follow)
            else:
                self._pieces.clear()
            # Whoever takes it may have to wait for room first, and the kernel's buffer is the better place meanwhile.
            self._hold_up()
            start = bytearray(self._taken())
            self.response.set_result(Response(self._status, tuple(self._headers), start, self._rest()))
        if self.streaming and len(self._body) > AHEAD_BYTES_MAX:
            self._hold_up()

    def on_message_complete(self) -> None:
        if self.complete or self._parser is None:
            return
        if not self._status:
            # 1xx, of which any number may come before the answer (RFC 9110, section 15.2).
            self._headers = []
            self._to_end = True
            self._chunked = False
            return
        self._keep = self._parser.should_keep_alive() and not self._odd
        self._end()

    def _end(self) -> None:
        self.complete = True
        # It knows this object as well: without the circle both are freed at once.
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

    def _hold_up(self) -> None:
        if not self._paused:
            self._paused = True
            self._pace(True)

    def _go_on(self) -> None:
        if self._paused:
            self._paused = False
            self._pace(False)

    async def _rest(self) -> AsyncIterator[bytes]:
        while True:
            if self._body:
                self._hold_up()  # see on_body
                yield self._taken()
            elif self.complete:
                self._go_on()
                return
            elif self._error is not None:
                raise self._error
            else:
                self._go_on()
                self._moved = asyncio.get_running_loop().create_future()
                await self._moved
