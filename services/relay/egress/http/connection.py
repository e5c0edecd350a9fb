"""One connection, which carries one exchange after the other."""

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

# A connection that the other side had closed before the request reached it shows that within a round trip: the end was on
# its way already, or the request is answered by a reset. A round trip around the world is 0.3 s, with a lost segment 0.6 s.
# Whoever closes later has had the request, and may have worked on it.
STALE_SECONDS = 1.0
# A destination that takes nothing of a body for so long will not: it, or what is before it, is stuck or gone.
STALL_SECONDS = 30.0
# So much is read at a time. Of an answer that is not asked for piece by piece yet it is little, as its reader may have
# to wait for room, and thousands with it; the rest waits in the kernel's buffers.
READ_BYTES = 16 * 1024
STREAM_READ_BYTES = 64 * 1024


class Buffers(NamedTuple):
    """What is read goes into these first. Connections share them, as each takes out at once what came for it."""

    small: memoryview
    large: memoryview


def new_buffers() -> Buffers:
    large = memoryview(bytearray(STREAM_READ_BYTES))
    return Buffers(large[:READ_BYTES], large)


class Connection(asyncio.BufferedProtocol):
    """`with connection:` around `exchange` and the reading of what it gives: afterwards the connection is used again, or
    broken off when anything of the exchange is left open.
    """

    __slots__ = (
        "_again", "_began", "_buffers", "_ended", "_poll", "_reading", "_sent", "_stall_seconds", "_transport", "_used",
        "_writable", "closed", "ends_at", "fresh", "idle_since",
    )  # fmt: skip

    def __init__(
        self, again: Callable[[Connection], None], buffers: Buffers, stall_seconds: float = STALL_SECONDS
    ) -> None:
        """`again` takes the connection when it is free to be used again."""
        self._again = again
        self._buffers = buffers
        self._stall_seconds = stall_seconds
        self._transport: asyncio.Transport | None = None
        self._reading: Reading | None = None
        self._writable: asyncio.Future[None] | None = None
        # For `_heard`, made once, as making it costs ten times what asking it does.
        self._poll: select.poll | None = None
        self._sent = self._used = self._ended = False
        self._began = 0.0
        self.idle_since = 0.0
        # By the loop's clock: it is not used again after that.
        self.ends_at = float("inf")
        # Told once it is gone.
        self.closed: Callable[[Connection], None] | None = None
        # Opened for a call that takes no kept one.
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
            reading.response.exception()  # asked for, so that nobody misses it when the request's own fault came first

    def keep_alive(self, seconds: int) -> None:
        """Let the system ask the other side after so long a silence, and again and again: see TCP_KEEPIDLE in tcp(7)."""
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds)

    def abort(self) -> None:
        """Close without a farewell."""
        if self._transport is not None:
            self._transport.abort()

    async def exchange(
        self, request: Request, inline_bytes_max: int, grow: Callable[[], bool] = lambda: True
    ) -> Response:
        """Send `request`; its answer when it is whole, or its beginning when its body has more than `inline_bytes_max`
        or `grow` says that there is no room for so much: see `Allowance`.

        Raises `NotSentError`, `NoAnswerError`, `StaleError`, and what a streamed body raises.
        """
        transport = self._transport
        if transport is None or transport.is_closing() or (self._used and self._heard()):
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

    def _heard(self) -> bool:
        """Whether the end of the connection, or bytes that nobody asked for, lie in the socket: the event loop sees them only
        after it has sent the request. Costs a microsecond. Not for new connections: TLS's tickets come unasked.
        """
        if self._poll is None:
            assert self._transport is not None
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    async def _send(self, pieces: AsyncGenerator[bytes, None], response: asyncio.Future[Response]) -> bool:
        """Whether all was sent: an answer that comes before, mostly a refusal, ends it."""
        async with aclosing(pieces):
            async for piece in pieces:
                if response.done() or self._transport is None:
                    return False
                self._transport.write(piece)
                # Before the next one is asked for, and after the last: until then `pieces` holds its place.
                await self._taken(response)
        return self._writable is None

    async def _taken(self, response: asyncio.Future[Response]) -> None:
        """Wait until the other side has taken nearly all, is gone, or answers. Raises `NoAnswerError` when it stands still."""
        while (writable := self._writable) is not None and self._transport is not None:
            left = self._transport.get_write_buffer_size()
            done, _ = await asyncio.wait(
                (writable, response), timeout=self._stall_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                return
            if self._transport is not None and self._transport.get_write_buffer_size() >= left:
                raise NoAnswerError(f"the destination took nothing of the body for {self._stall_seconds:g} s")

    async def secure(self, tls: ssl.SSLContext, host: str) -> None:
        """From here on speak TLS with `host`, through what was a tunnel's plain connection. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        assert self._transport is not None
        self._transport = await loop.start_tls(self._transport, self, tls, server_hostname=host)
        self._reading = None
        self._hold_back()

    def _hold_back(self) -> None:
        """While reading is paused TLS takes nothing more from the socket than it has: uvloop drops what lies in between when the
        other side closes, and the end of a large answer would be lost.
        """
        limit = getattr(self._transport, "set_read_buffer_limits", None)
        if limit is not None:
            limit(high=1, low=0)

    def _pace(self, wait: bool) -> None:  # noqa: FBT001  a callback of one meaning
        if self._transport is None or self._transport.is_closing():
            return
        if wait:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._hold_back()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._buffers.large if self._reading is not None and self._reading.streaming else self._buffers.small

    def buffer_updated(self, nbytes: int) -> None:
        if self._reading is None:
            # Nobody asked: it cannot be trusted to be an answer to what is asked next.
            self.abort()
        else:
            # Both buffers begin at the same place.
            self._reading.feed(bytes(self._buffers.large[:nbytes]))

    def eof_received(self) -> None:
        """After this the transport closes itself. Over TLS the end counts only when TLS says it, by close_notify: anyone on the
        way can make TCP's (RFC 9112, section 9.8). asyncio calls this after both, uvloop after TLS's alone.
        """
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        try:
            # Nothing is left to read: it is the end that is asked for, and a fault that it has not come.
            self._ended = tls is None or not tls.read(1)
        except ssl.SSLError:
            self._ended = False

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self.closed is not None:
            self.closed(self)
        self.resume_writing()
        if self._reading is not None:
            soon = self._used and asyncio.get_running_loop().time() - self._began <= STALE_SECONDS
            self._reading.closed(error, ended=self._ended, soon=soon)

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)
