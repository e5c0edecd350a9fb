"""One answer while it comes in: parsed by llhttp (RFC 9112), bounded, and handed over whole or piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from services.relay.http.faults import NoAnswerError, StaleError

# Of heads, trailers and chunk extensions so much may come without a byte of a body: real heads have 1 to 8 KB.
HEAD_BYTES_MAX = 64 * 1024
# So much of an answer that is taken piece by piece lies here before the other side has to wait.
AHEAD_BYTES_MAX = 256 * 1024
_FINAL_STATUS_MIN = 200


@dataclass(frozen=True, slots=True)
class Response:
    """`headers` in the order and case in which they came; bytes that are no UTF-8 are kept as surrogates.

    `body` is the whole body when `rest` is None, else its beginning, and `rest` has what follows, piece by piece; it
    raises `NoAnswerError` when the other side ends before the answer does.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    rest: AsyncIterator[bytes] | None = None


class Reading:
    """`response` is set when all of the answer, or more than `inline_bytes_max` of its body, is here.

    `pace(True)` asks the other side to wait, `pace(False)` to go on. `reused`: the connection had an exchange before.
    """

    __slots__ = (
        "_body", "_error", "_headers", "_inline_bytes_max", "_keep", "_method", "_moved", "_overhead", "_pace", "_parser",
        "_paused", "_reused", "_size", "_status", "_streaming", "_to_end", "complete", "response",
    )  # fmt: skip

    def __init__(self, method: str, inline_bytes_max: int, *, reused: bool, pace: Callable[[bool], None]) -> None:
        self.response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.complete = False
        self._method = method
        self._inline_bytes_max = inline_bytes_max
        self._reused = reused
        self._pace = pace
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._body: bytes | bytearray = b""
        self._size = self._overhead = 0
        self._to_end = True
        self._keep = self._streaming = self._paused = False
        self._error: Exception | None = None
        self._moved: asyncio.Future[None] | None = None

    @property
    def clean(self) -> bool:
        """The answer is whole and taken, nothing followed it, and the other side will take another request."""
        return self.complete and self._keep and not self._paused

    def feed(self, data: bytes) -> None:
        """What came from the other side."""
        parser = self._parser
        if parser is None or self.complete:
            # What follows an answer cannot be trusted to be an answer to what is asked next.
            self._keep = False
            return
        before = self._size
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            self._fail(NoAnswerError("the destination switched to another protocol, unasked"))
        except HttpParserError as error:
            self._keep = False
            self._fail(NoAnswerError(f"the answer is no valid HTTP: {error}"))
        self._overhead = self._overhead + len(data) if self._size == before else 0
        if self._overhead > HEAD_BYTES_MAX and not self.complete:
            self._fail(NoAnswerError(f"the answer has more than {HEAD_BYTES_MAX} bytes without a body's"))

    def closed(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._keep = False
        if self.complete:
            return
        if error is None and self._status and self._to_end:
            self._end()
        elif self._reused and not self._status and not self._overhead:
            self._fail(StaleError("the connection, kept from before, was closed before an answer came"))
        else:
            where = "in the middle of the answer" if self._status else "before an answer came"
            self._fail(NoAnswerError(f"the connection was closed {where}" + (f": {error}" if error else "")))

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self.complete:
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._status:
            return  # a trailer
        lowered = name.lower()
        if lowered == b"content-length" or (
            lowered == b"transfer-encoding" and value.lower().rstrip().endswith(b"chunked")
        ):
            self._to_end = False
        self._headers.append(
            (name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape").strip())
        )

    def on_headers_complete(self) -> None:
        status = 0 if self._parser is None else self._parser.get_status_code()
        if status < _FINAL_STATUS_MIN:
            return
        self._status = status
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
        if self._streaming:
            self._move()
        elif self._size > self._inline_bytes_max and not self.response.done():
            self._streaming = True
            # Whoever takes it may have to wait for room first, and the kernel's buffer is the better place meanwhile.
            self._hold_up()
            self.response.set_result(Response(self._status, tuple(self._headers), self._taken(), self._rest()))
        if self._streaming and len(self._body) > AHEAD_BYTES_MAX:
            self._hold_up()

    def on_message_complete(self) -> None:
        if self.complete or self._parser is None:
            return
        if not self._status:
            # 1xx, of which any number may come before the answer (RFC 9110, section 15.2).
            self._headers = []
            self._to_end = True
            return
        self._keep = self._parser.should_keep_alive()
        self._end()

    def _end(self) -> None:
        self.complete = True
        # It knows this object as well: without the circle both are freed at once.
        self._parser = None
        if self._streaming:
            self._move()
        elif not self.response.done():
            self.response.set_result(Response(self._status, tuple(self._headers), self._taken()))

    def _fail(self, error: NoAnswerError) -> None:
        self._parser = None
        if self.complete:
            self._keep = False
            return
        self._error = error
        if self._streaming:
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
