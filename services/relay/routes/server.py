"""The HTTP server under the router: bodies as they came, and an answer in JSON to what is no request at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from services.relay.routes.reply import RefusedError, error_reply

# Of a `web.Request`, which the library's types do not know to be made here.
Answering = Callable[[Any], Awaitable[web.StreamResponse]]

# Of the request line and of one header. The clients put 500 ids into a query, which are 24 KB; a token may be long too.
LINE_BYTES_MAX = 65_536
WORDS_MAX = 200


# No access log: figures are at /metrics, and a log line a message would be the dearest part. Bodies are not decompressed:
# they are the destination's, with the header that says how to read them.
_OPTIONS: dict[str, Any] = {
    "access_log": None,
    "auto_decompress": False,
    "max_line_size": LINE_BYTES_MAX,
    "max_field_size": LINE_BYTES_MAX,
}


class _Connection(web.RequestHandler):
    """One connection. The library answers what it cannot read in plain text; the protocol's errors are JSON."""

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
        # The first line says what is wrong, the others quote the request.
        words = (message or "").partition("\n")[0].strip(" :")[:WORDS_MAX]
        answer = error_reply(status, f"no valid HTTP request: {words}" if status < 500 else "internal error")
        answer.force_close()
        return answer


class _Server(web.Server):
    """Makes connections of our own kind."""

    def __init__(self, answering: Answering, body_bytes_max: int) -> None:
        self._running_loop = asyncio.get_running_loop()
        self._body_bytes_max = body_bytes_max
        super().__init__(answering, request_factory=self._request)

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._running_loop, **_OPTIONS)

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]) -> web.Request:
        return web.Request(
            message, payload, protocol, writer, task, self._running_loop, client_max_size=self._body_bytes_max
        )


def build_runner(answering: Answering, body_bytes_max: int) -> web.ServerRunner:
    """Serves `answering`. Made inside a running event loop."""
    return web.ServerRunner(_Server(answering, body_bytes_max), handle_signals=False)


async def let_come(request: web.Request) -> None:
    """Tell who waits for it (`Expect: 100-continue`) to send the body. Raises `RefusedError` for other expectations."""
    expected = request.headers.get("Expect")
    if expected is None or request.version < (1, 1):
        return
    if expected.lower() != "100-continue":
        raise RefusedError(417, f"unknown Expect {expected[:50]!r}")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # Else it would count as the beginning of the answer.
    request.writer.output_size = 0
