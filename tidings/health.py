"""`/healthz`, `/readyz` and `/metrics` of the processes that serve nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app

from tidings.settings import split_listen

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

# A check answers None when its dependency is well, else what is wrong with it, in a few words without secrets.
Check = Callable[[], str | None]


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *_args: Any) -> None:
        """Probes come every few seconds and say nothing."""


class HealthServer:
    """A small HTTP server in a daemon thread. Loopback by default; it needs no authentication as it tells no secret.

    `GET /healthz` → 200 while the process runs. `GET /readyz` → 200, or 503 with what each check said.
    `GET /metrics` → Prometheus text.
    """

    def __init__(self, listen: str, checks: Mapping[str, Check], registry: CollectorRegistry = REGISTRY) -> None:
        self._checks = checks
        self._metrics = make_wsgi_app(registry)
        host, port = split_listen(listen)
        self._server: WSGIServer = make_server(host, port, self._app, handler_class=_QuietHandler)
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


def _answer(start_response: StartResponse, status: str, body: Mapping[str, Any]) -> list[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]
