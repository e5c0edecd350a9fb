"""A TCP proxy between a process and its server that cuts, delays and discards the traffic. It parses Postgres' protocol
only to discard the answer to one statement.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

T = TypeVar("T")

PIECE_BYTES = 64 * 1024
# The Parse message of a prepared statement: its name, then its text (Postgres protocol 3.0, "Message Formats").
_PREPARED = re.compile(rb"P....(_pg3_[0-9a-f]+)\x00([^\x00]*)", re.DOTALL)


class TcpProxy:
    """Forwards to `url`'s host and port. Faults last until `heal`. Every method may be called from any thread."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.delay_seconds = 0.0
        self.refusing = False
        self.swallowing = False
        self.losing: bytes | None = None
        self.lost = 0
        self._loses_until: int | None = None

    def start(self) -> TcpProxy:
        self._thread.start()
        self._run(self._listen())
        return self

    def stop(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def url(self, url: str) -> str:
        """`url` with this proxy's address."""
        parts = urlsplit(url)
        credentials = parts.netloc.rpartition("@")[0]
        netloc = f"{credentials}@127.0.0.1:{self.port}" if credentials else f"127.0.0.1:{self.port}"
        return urlunsplit(parts._replace(netloc=netloc))

    def cut(self) -> int:
        """Reset every connection once, and return their number. New ones are forwarded."""
        return self._run(self._cut())

    def refuse(self) -> None:
        """Reset every connection, and new ones as soon as they are opened."""
        self.refusing = True
        self.cut()

    def swallow(self) -> None:
        """Forward nothing and close nothing, in both directions: a host that disappeared without a RST."""
        self.swallowing = True

    def delay(self, seconds: float) -> None:
        """Forward each piece, in both directions, after `seconds`."""
        self.delay_seconds = seconds

    def lose_answers(self, statement: bytes, *, times: int | None = None) -> None:
        """Forward statements whose text contains `statement`, and reset the connection in place of their answers.
        `lost` counts them. After `times` answers are forwarded again.
        """
        self._loses_until = None if times is None else self.lost + times
        self.losing = statement

    def count_lost(self) -> None:
        self.lost += 1
        if self.lost == self._loses_until:
            self.losing = None

    def heal(self) -> None:
        """Forward again. Connections that lost bytes are reset, as their streams have gaps."""
        was_swallowing = self.swallowing
        self.delay_seconds, self.refusing, self.swallowing, self.losing = 0.0, False, False, None
        if was_swallowing:
            self.cut()

    @property
    def connections(self) -> int:
        return len(self._links)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()
        for _ in range(100):
            if self._links:
                await asyncio.sleep(0.01)

    async def _cut(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            _reset(writer)
            return
        try:
            upstream = await asyncio.open_connection(*self._upstream)
        except OSError:
            _reset(writer)
            return
        link = _Link(self, (reader, writer), upstream, closed=self._links.discard)
        self._links.add(link)
        await link.run()


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One forwarded connection."""

    def __init__(self, proxy: TcpProxy, client: Stream, server: Stream, *, closed: Callable[[_Link], None]) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._closed = closed
        self._prepared: dict[bytes, bytes] = {}
        self._answer_lost = False

    async def run(self) -> None:
        pumps = [
            asyncio.create_task(self._forward(self._client[0], self._server[1], asking=True)),
            asyncio.create_task(self._forward(self._server[0], self._client[1], asking=False)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for writer in (self._client[1], self._server[1]):
                writer.close()
            self._closed(self)

    def reset(self) -> None:
        for writer in (self._client[1], self._server[1]):
            _reset(writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, asking: bool) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE_BYTES):
                if self._proxy.delay_seconds:
                    await asyncio.sleep(self._proxy.delay_seconds)
                if self._proxy.swallowing:
                    continue
                if asking:
                    self._look(piece)
                elif self._answer_lost:
                    # The answer has arrived, so the statement was executed.
                    self._proxy.count_lost()
                    self.reset()
                    return
                writer.write(piece)
                await writer.drain()

    def _look(self, piece: bytes) -> None:
        for name, text in _PREPARED.findall(piece):
            self._prepared[name] = text
        losing = self._proxy.losing
        # A statement with many parameters arrives in several pieces.
        if losing is not None and not self._answer_lost:
            names = [name for name, text in self._prepared.items() if losing in text]
            self._answer_lost = losing in piece or any(name + b"\x00" in piece for name in names)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a RST in place of a FIN."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def tcp_proxy(url: str) -> Iterator[TcpProxy]:
    """A proxy in front of the server of `url`, stopped at the end of the block."""
    parts = urlsplit(url)
    proxy = TcpProxy(parts.hostname or "127.0.0.1", parts.port or 5432).start()
    try:
        yield proxy
    finally:
        proxy.stop()
