"""The HTTP server under the router. Bodies pass unchanged, and input that is not a valid request gets a JSON answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from services.relay.api.connection import Connection, Limits
from services.relay.api.reply import RefusedError

# Takes a `web.Request`. The library's types cannot express that this server's factory creates it.
Answering = Callable[[Any], Awaitable[web.StreamResponse]]

# The fraction of idle connections closed at once beyond the limit: finding the oldest ones scans all connections.
IDLE_SPARE = 1 / 16

# No access log: /metrics has the figures, and a log line per message would be the most expensive step. Bodies are not
# decompressed: they are for the destination, with the header that names their encoding.
_OPTIONS: dict[str, Any] = {"access_log": None, "auto_decompress": False}


class _Server(web.Server):
    """Creates connections of our own class, and bounds their total resources."""

    def __init__(self, answering: Answering, body_bytes_max: int, limits: Limits) -> None:
        self._running_loop = asyncio.get_running_loop()
        self._body_bytes_max = body_bytes_max
        self._limits = limits
        self._heads: dict[Connection, int] = {}
        self._heads_bytes = 0
        self._crowded = limits.idle_max
        super().__init__(answering, request_factory=self._request)

    def __call__(self) -> web.RequestHandler:
        return Connection(self, self._limits, manager=self, loop=self._running_loop, **_OPTIONS)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._connections) > self._crowded:
            self._close_oldest()

    def head_grew(self, connection: Connection, size: int) -> None:
        """Close the oldest heads beyond the limit: a normal head is complete within milliseconds."""
        self._heads[connection] = self._heads.get(connection, 0) + size
        self._heads_bytes += size
        while self._heads_bytes > self._limits.heads_bytes_max:
            next(iter(self._heads)).end(503, "too many requests are on their way in")

    def head_ended(self, connection: Connection) -> None:
        self._heads_bytes -= self._heads.pop(connection, 0)

    def _close_oldest(self) -> None:
        connections = [one for one in self._connections if isinstance(one, Connection)]
        idle = [(since, one) for one in connections if (since := one.idle_since) is not None]
        spare = max(1, int(self._limits.idle_max * IDLE_SPARE))
        if len(idle) > self._limits.idle_max:
            for _, one in sorted(idle, key=lambda item: item[0])[: len(idle) - self._limits.idle_max + spare]:
                one.force_close()
        busy = len(connections) - len(idle)
        self._crowded = max(self._limits.idle_max, busy + min(len(idle), self._limits.idle_max)) + spare

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]) -> web.Request:
        return web.Request(
            message, payload, protocol, writer, task, self._running_loop, client_max_size=self._body_bytes_max
        )


def build_runner(answering: Answering, body_bytes_max: int, limits: Limits = Limits()) -> web.ServerRunner:  # noqa: B008
    """Serves `answering`. Must be called inside a running event loop."""
    return web.ServerRunner(_Server(answering, body_bytes_max, limits), handle_signals=False)


async def let_come(request: web.Request) -> None:
    """Tell a client that waits (`Expect: 100-continue`) to send the body. Raises `RefusedError` for other expectations,
    and for transfer codings except chunked: the library would remove the chunks and leave the body compressed.
    """
    coding = request.headers.get("Transfer-Encoding")
    if coding is not None and coding.strip().lower() != "chunked":
        raise RefusedError(501, f"Transfer-Encoding {coding[:50]!r} is not offered; use Content-Encoding")
    expected = request.headers.get("Expect")
    if expected is None or request.version < (1, 1):
        return
    if expected.lower() != "100-continue":
        raise RefusedError(417, f"unknown Expect {expected[:50]!r}")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # Otherwise these bytes would count as the start of the answer.
    request.writer.output_size = 0
