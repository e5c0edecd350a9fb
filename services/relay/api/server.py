"""The HTTP server under the router: bodies as they came, and an answer in JSON to what is no request at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from services.relay.api.connection import Connection, Limits
from services.relay.api.reply import RefusedError

# Of a `web.Request`, which the library's types do not know to be made here.
Answering = Callable[[Any], Awaitable[web.StreamResponse]]

# Of those that are too many, so many go at once: to look for the oldest takes a look at all.
IDLE_SPARE = 1 / 16

# No access log: figures are at /metrics, and a log line a message would be the dearest part. Bodies are not decompressed:
# they are the destination's, with the header that says how to read them.
_OPTIONS: dict[str, Any] = {"access_log": None, "auto_decompress": False}


class _Server(web.Server):
    """Makes connections of our own kind, and sees to it that all of them together stay bounded."""

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
        """Beyond the bound the oldest heads go: an honest one is here within milliseconds."""
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
    """Serves `answering`. Made inside a running event loop."""
    return web.ServerRunner(_Server(answering, body_bytes_max, limits), handle_signals=False)


async def let_come(request: web.Request) -> None:
    """Tell who waits for it (`Expect: 100-continue`) to send the body. Raises `RefusedError` for other expectations, and
    for transfer codings but chunked: the library would take the body off the chunks and leave it compressed.
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
    # Else it would count as the beginning of the answer.
    request.writer.output_size = 0
