"""The call of a WSGI application with a complete body. The response is returned as one piece."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from services.api.head import Head
from services.api.reply import Reply

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def call(app: WSGIApplication, environ: dict[str, Any]) -> Reply:
    """Call `app` and return its response. Runs in a thread, because the call may wait for Postgres."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _exc_info: object = None) -> Any:
        started[:] = [(status, headers)]
        return lambda _: None

    chunks = app(environ, start_response)
    try:
        body = b"".join(chunks)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    status, headers = started[0]
    # No response of the application repeats a header.
    return Reply(int(status[:3]), dict(headers), body)


def environ_of(head: Head, body: bytes, scope: Mapping[str, Any]) -> dict[str, Any]:
    """Build the environment that PEP 3333 defines."""
    server, client = scope.get("server") or ("", ""), scope.get("client") or ("", "")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": head.path,
        "QUERY_STRING": head.query,
        "SERVER_PROTOCOL": f"HTTP/{head.version}",
        "SERVER_NAME": str(server[0]),
        "SERVER_PORT": str(server[1]),
        "REMOTE_ADDR": str(client[0]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in head.headers.items():
        if name not in {"content-length", "content-type", "transfer-encoding"}:
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    if "content-type" in head.headers:
        environ["CONTENT_TYPE"] = head.headers["content-type"]
    environ["CONTENT_LENGTH"] = str(len(body))
    return environ
