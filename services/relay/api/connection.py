"""One connection of a client, based on aiohttp's. It bounds the bytes received before a request is complete, and the
time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from services.relay.api.reply import RefusedError, error_body, error_reply

WORDS_MAX = 200


@dataclass(frozen=True)
class Limits:
    """The limits of connections that have not shown a token yet, so that no client can hold memory or sockets without
    one.

    `heads_bytes_max` bounds all incomplete heads together, and `idle_max` the connections without a request. Beyond
    them the oldest are closed. `stalled_seconds` is the longest pause of a body.
    """

    # Of the request line, and of each header. The clients send 500 ids in a query, which are 24 KB. A token may be long
    # too.
    line_bytes_max: int = 64 * 1024
    head_bytes_max: int = 256 * 1024
    heads_bytes_max: int = 32 * 1024 * 1024
    head_seconds: float = 30.0
    # Longer than the 60 s of load balancers, so that they close first.
    idle_seconds: float = 75.0
    stalled_seconds: float = 30.0
    # Unneeded input is read for this long, as a reset would discard the answer that gives the reason.
    linger_seconds: float = 2.0
    idle_max: int = 4096


class Crowd(Protocol):
    """The events that a connection reports to the server, which sees all connections."""

    def head_grew(self, connection: Connection, size: int) -> None: ...

    def head_ended(self, connection: Connection) -> None: ...


class Connection(web.RequestHandler):
    """The library answers unreadable requests in plain text, but the protocol's errors are JSON.

    `_due` is None while no timer of this class runs: then only the next request is expected, and the library's
    keep-alive timer covers that. It is set while a head or a body is arriving.
    """

    __slots__ = ("_crowd", "_due", "_ended", "_head_bytes", "_limits", "_payload", "_timer")

    def __init__(self, crowd: Crowd, limits: Limits, **options: Any) -> None:
        super().__init__(
            keepalive_timeout=limits.idle_seconds,
            max_line_size=limits.line_bytes_max,
            max_field_size=limits.line_bytes_max,
            **options,
        )
        self._crowd = crowd
        self._limits = limits
        self._payload: StreamReader | None = None
        self._head_bytes = 0
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    @property
    def idle_since(self) -> float | None:
        """The time since when no complete request is in progress; None: one is. By the loop's
        clock, less a constant.
        """
        waits = self._waiter is not None and not self._waiter.done()
        return self._next_keepalive_close_time if waits else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._await_until(self._limits.head_seconds)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._ended = True
        self._leave_head()
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        known, in_body = self._request_count, self._is_body_open()
        super().data_received(data)
        if self._request_count > known:
            if self._head_bytes or len(data) > self._limits.head_bytes_max:
                self._check_head(len(data))
            self._payload = self._messages[-1][1]
        elif not in_body:
            self._read_head(len(data))
            return
        if self._is_body_open():
            self._await_until(self._limits.stalled_seconds)
        else:
            self._due = None

    def _resume_transport_reading(self) -> None:
        super()._resume_transport_reading()
        if self._is_body_open():
            # The client was not stalled while it waited for the relay.
            self._await_until(self._limits.stalled_seconds)

    def end(self, status: int, text: str) -> None:
        """Answer an incomplete or invalid request, and close. Nothing more is read, and the bytes
        read are discarded.
        """
        self._ended = True
        self._leave_head()
        if self.transport is None or self.idle_since is None or self._messages:
            self.force_close()
            return
        body = error_body(text)
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        )
        self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.write_eof()
        self._parser = None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._limits.linger_seconds, self.force_close)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun")
        if status >= 500:
            self.log_exception("A request failed", exc_info=exc)
        # The first line states the error. The others quote the request.
        words = (message or "").partition("\n")[0].strip(" :")[:WORDS_MAX]
        answer = error_reply(status, f"no valid HTTP request: {words}" if status < 500 else "internal error")
        answer.force_close()
        return answer

    def _is_body_open(self) -> bool:
        return self._payload is not None and not self._payload.is_eof()

    def _read_head(self, size: int) -> None:
        """Count a part of a head that is not complete yet."""
        if not size:
            return
        if not self._head_bytes:
            self._await_until(self._limits.head_seconds)
        self._head_bytes += size
        if self._head_bytes > self._limits.head_bytes_max:
            self.end(431, self._too_large())
        else:
            self._crowd.head_grew(self, size)

    def _check_head(self, size: int) -> None:
        """Check a complete head. Its last piece may exceed the limit, or contain the start of a body."""
        total = self._head_bytes + size
        self._leave_head()
        message = self._messages[-1][0]
        if total <= self._limits.head_bytes_max or isinstance(message, _ErrInfo):
            return
        if sum(len(name) + len(value) + 4 for name, value in message.raw_headers) > self._limits.head_bytes_max:
            refusal = _ErrInfo(431, ValueError("head too large"), self._too_large())
            self._messages[-1] = (refusal, EMPTY_PAYLOAD)

    def _too_large(self) -> str:
        return f"the head is larger than {self._limits.head_bytes_max} bytes"

    def _leave_head(self) -> None:
        if self._head_bytes:
            self._head_bytes = 0
            self._crowd.head_ended(self)

    def _await_until(self, seconds: float) -> None:
        self._due = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        """A timer that is no longer needed is not cancelled but left to expire: cancelling each one would cost more."""
        self._timer = None
        if self._due is None or self._ended:
            return
        if self._is_body_open() and (self._reading_paused or self._buffer_paused):
            # The client waits for the relay.
            self._due = self._loop.time() + self._limits.stalled_seconds
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._look)
        elif self._is_body_open():
            self._end_body()
        elif self._head_bytes:
            self.end(408, f"the head did not arrive within {self._limits.head_seconds:g} s")
        else:
            self.force_close()

    def _end_body(self) -> None:
        """The reader of the body receives `RefusedError`."""
        self._ended = self._close = True
        if self._payload is not None:
            text = f"the body stood still for {self._limits.stalled_seconds:g} s"
            self._payload.set_exception(RefusedError(408, text, {"Connection": "close"}))
            # Otherwise the library would wait for the rest.
            self._payload.feed_eof()
