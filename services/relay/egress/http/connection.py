"""One connection, which carries one exchange after another."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import NamedTuple, Self, cast

from services.relay.egress.http.allowance import Allowance
from services.relay.egress.http.faults import NoAnswerError, NotSentError, StaleError
from services.relay.egress.http.reading import Reading
from services.relay.egress.http.request import Request
from services.relay.egress.http.response import Response

# If the other side closed a connection before the request reached it, that shows within a round trip: either its FIN
# was in transit already, or the request is answered by a reset. A round trip around the world is 0.3 s, with a lost
# segment 0.6 s. A server that closes later has received the request, and may have worked on it.
STALE_SECONDS = 1.0
# A destination that accepts no bytes of a body for this long never will: it, or a hop before it, is stuck or gone.
STALL_SECONDS = 30.0
# The size of one read. It is small for an answer that is not yet read piece by piece, as its reader, like thousands of
# others, may wait for memory. The rest stays in the kernel's buffers.
READ_BYTES = 16 * 1024
STREAM_READ_BYTES = 64 * 1024


class Buffers(NamedTuple):
    """The buffers that reads go into. Connections share them, as each copies its bytes out at once."""

    small: memoryview
    large: memoryview


def new_buffers() -> Buffers:
    large = memoryview(bytearray(STREAM_READ_BYTES))
    return Buffers(large[:READ_BYTES], large)


class Connection(asyncio.BufferedProtocol):
    """Use `with connection:` around `exchange` and the reading of its result. Afterwards the connection is reused, or
    closed when any part of the exchange is incomplete.
    """

    __slots__ = (
        "_again", "_began", "_buffers", "_ended", "_poll", "_reading", "_sent", "_stall_seconds", "_transport", "_used",
        "_writable", "closed", "ends_at", "fresh", "idle_since",
    )  # fmt: skip

    def __init__(
        self, again: Callable[[Connection], None], buffers: Buffers, stall_seconds: float = STALL_SECONDS
    ) -> None:
        """`again` receives the connection when it is free for reuse."""
        self._again = again
        self._buffers = buffers
        self._stall_seconds = stall_seconds
        self._transport: asyncio.Transport | None = None
        self._reading: Reading | None = None
        self._writable: asyncio.Future[None] | None = None
        # For `_has_input`. It is created once, as creating it costs ten times as much as polling.
        self._poll: select.poll | None = None
        self._sent = self._used = self._ended = False
        self._began = 0.0
        self.idle_since = 0.0
        # By the loop's clock. The connection is not reused after this time.
        self.ends_at = float("inf")
        # Called once the connection is gone.
        self.closed: Callable[[Connection], None] | None = None
        # Opened for a call that must not use a kept connection.
        self.fresh = False

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        reading, self._reading = self._reading, None
        if reading is not None and reading.clean and self._sent and self.open:
            self._used = True
            self._again(self)
            return
        self.abort()
        if reading is not None and reading.response.done() and not reading.response.cancelled():
            reading.response.exception()  # retrieved, so that asyncio does not report it after an error of the request

    def keep_alive(self, seconds: int) -> None:
        """Let the system probe the other side after this much silence, repeatedly: see TCP_KEEPIDLE in tcp(7)."""
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds)

    def abort(self) -> None:
        """Close at once, without a TLS or TCP shutdown."""
        if self._transport is not None:
            self._transport.abort()

    async def exchange(
        self, request: Request, inline_bytes_max: int, grow: Callable[[], bool] = lambda: True
    ) -> Response:
        """Send `request` and return its answer: whole, or only its beginning when the body has more than
        `inline_bytes_max` or `grow` finds no memory for that much: see `Allowance`.

        Raises `NotSentError`, `NoAnswerError`, `StaleError`, and what a streamed body raises.
        """
        transport = self._transport
        if transport is None or transport.is_closing() or (self._used and self._has_input()):
            self.abort()
            fault = StaleError if self._used else NotSentError
            raise fault("the connection was closed before the request was sent")
        self._reading = reading = Reading(request.method, Allowance(inline_bytes_max, grow), pace=self._pace)
        if self._used:
            self._began = asyncio.get_running_loop().time()
        if isinstance(request.body, bytes):
            transport.write(request.head + request.body)
            self._sent = True
        else:
            transport.write(request.head)
            self._sent = await self._send(request.body, reading.response)
        return await reading.response

    def _has_input(self) -> bool:
        """Whether the socket has a FIN or unsolicited bytes to read. The event loop would see them only after it has
        sent the request. The check costs a microsecond. It does not apply to new connections, as TLS tickets arrive
        unsolicited.
        """
        if self._poll is None:
            assert self._transport is not None
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    async def _send(self, pieces: AsyncGenerator[bytes, None], response: asyncio.Future[Response]) -> bool:
        """Send the body. Returns whether all was sent: an early answer, usually a refusal, ends the transfer."""
        async with aclosing(pieces):
            async for piece in pieces:
                if response.done() or self._transport is None:
                    return False
                self._transport.write(piece)
                # Wait before the next piece is requested, and after the last: until then `pieces` holds its place.
                await self._taken(response)
        return self._writable is None

    async def _taken(self, response: asyncio.Future[Response]) -> None:
        """Wait until the other side has accepted nearly all bytes, is gone, or answers. Raises `NoAnswerError` when it
        accepts none.
        """
        while (writable := self._writable) is not None and self._transport is not None:
            left = self._transport.get_write_buffer_size()
            done, _ = await asyncio.wait(
                (writable, response), timeout=self._stall_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                return
            if self._transport is not None and self._transport.get_write_buffer_size() >= left:
                raise NoAnswerError(f"the destination accepted no data of the body for {self._stall_seconds:g} s")

    async def secure(self, tls: ssl.SSLContext, host: str) -> None:
        """Switch the connection, a plain tunnel so far, to TLS with `host`. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        assert self._transport is not None
        self._transport = await loop.start_tls(self._transport, self, tls, server_hostname=host)
        self._reading = None
        self._pause_reading()

    def _pause_reading(self) -> None:
        """Keep TLS from reading ahead from the socket while reading is paused. uvloop drops the bytes between them when
        the other side closes, and the end of a large answer would be lost.
        """
        limit = getattr(self._transport, "set_read_buffer_limits", None)
        if limit is not None:
            limit(high=1, low=0)

    def _pace(self, wait: bool) -> None:  # noqa: FBT001  a callback with one argument
        if self._transport is None or self._transport.is_closing():
            return
        if wait:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # Callbacks of the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._buffers.large if self._reading is not None and self._reading.streaming else self._buffers.small

    def buffer_updated(self, nbytes: int) -> None:
        if self._reading is None:
            # Unsolicited bytes. They could be mistaken for an answer to the next request.
            self.abort()
        else:
            # Both buffers start at the same address.
            self._reading.feed(bytes(self._buffers.large[:nbytes]))

    def eof_received(self) -> None:
        """The transport closes itself after this. Over TLS the end counts only if TLS announces it by close_notify,
        since anyone on the path can forge TCP's FIN (RFC 9112, section 9.8). asyncio calls this after both, uvloop
        after that of TLS alone.
        """
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        try:
            # No bytes are left to read. The read returns the end, or raises an error if TLS has not announced it.
            self._ended = tls is None or not tls.read(1)
        except ssl.SSLError:
            self._ended = False

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self.closed is not None:
            self.closed(self)
        self.resume_writing()
        if self._reading is not None:
            early = self._used and asyncio.get_running_loop().time() - self._began <= STALE_SECONDS
            self._reading.closed(error, ended=self._ended, early=early)

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)
