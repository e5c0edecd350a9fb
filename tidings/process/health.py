"""`/healthz`, `/readyz` and `/metrics` of the processes that have no other HTTP server."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app

from tidings.process.settings import EXIT_CONFIGURATION, split_listen

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

# A check returns None if its dependency works, and otherwise the fault, in a few words without secrets.
Check = Callable[[], str | None]

# A probe takes milliseconds. Beyond this number of connections the oldest is closed, so that idle connections never
# block a probe; each takes a thread.
CONNECTIONS_MAX = 32
# The timeout of one read or write, and of a whole connection: a client may send a byte a second.
IO_SECONDS = 5.0
CONNECTION_SECONDS = 10.0


class _Handler(WSGIRequestHandler):
    timeout = IO_SECONDS

    def log_message(self, *_args: Any) -> None:
        """Do not log probes, which arrive every few seconds."""


class _Server(ThreadingMixIn, WSGIServer):
    """One thread per connection; beyond the maximum the oldest connection is closed."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._lock = threading.Lock()
        self._open: dict[socket.socket, float] = {}
        super().__init__(*arguments, **named)

    def server_bind(self) -> None:
        """Like `HTTPServer`, but without a DNS query for the name of the address, which may take for ever."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open[request] = time.monotonic()
            excess = list(self._open)[:-CONNECTIONS_MAX]
        self._end(excess)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Close old connections. `serve_forever` calls this every half second."""
        before = time.monotonic() - CONNECTION_SECONDS
        with self._lock:
            old = [request for request, at in self._open.items() if at < before]
        self._end(old)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """Ignore a client that disconnected or was too slow."""

    def _end(self, requests: Iterable[socket.socket]) -> None:
        for request in requests:
            with self._lock:
                self._open.pop(request, None)
            try:
                request.shutdown(socket.SHUT_RDWR)  # its thread's read or write then fails, and the thread closes it
            except OSError:
                continue


class HealthServer:
    """A small HTTP server in a daemon thread, on loopback by default. It needs no authentication, because it exposes no
    secret.

    `GET /healthz` → 200 while the process runs. `GET /readyz` → 200, or 503 with the fault of each check. `GET
    /metrics` → Prometheus text. Raises `OSError` if the address cannot be listened on.
    """

    def __init__(self, listen: str, checks: Mapping[str, Check], registry: CollectorRegistry = REGISTRY) -> None:
        self._checks = checks
        self._metrics = make_wsgi_app(registry)
        host, port = split_listen(listen)
        self._server = make_server(host, port, self._app, server_class=_Server, handler_class=_Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_port

    def start(self) -> HealthServer:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return self._metrics(environ, start_response)  # type: ignore[no-any-return,no-untyped-call,unused-ignore]
        if path == "/healthz":
            return _answer(start_response, "200 OK", {"status": "ok"})
        if path == "/readyz":
            faults = {name: fault for name, check in self._checks.items() if (fault := check()) is not None}
            status = "503 Service Unavailable" if faults else "200 OK"
            return _answer(start_response, status, {"status": "not ready" if faults else "ok", "faults": faults})
        return _answer(start_response, "404 Not Found", {"title": "Not Found"})


def serve_health(variable: str, listen: str, checks: Mapping[str, Check]) -> HealthServer:
    """Return a started server, for a `__main__`. If the address is unavailable, print one sentence and exit with 78."""
    try:
        return HealthServer(listen, checks).start()
    except OSError as error:
        sys.stderr.write(f"{variable}: cannot listen on {listen}: {error.strerror or error}\n")
        raise SystemExit(EXIT_CONFIGURATION) from None


def _answer(start_response: StartResponse, status: str, body: Mapping[str, Any]) -> list[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]
