"""`POST /v1/submissions` without Flask, whose own work is five sixths of such a request.

WSGI middleware that takes the one route in its plain form, by the same functions and in the same order as the view. It is not
a second api: whatever is out of the ordinary is left to Flask, and a contract test holds its answers to Flask's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import orjson
from werkzeug.exceptions import ClientDisconnected
from werkzeug.wrappers import Response

from services.api.authentication import Authentication
from services.api.intake import Intake, accepted, accepted_headers
from services.api.models import parse_json, traceparent
from services.api.row import Row

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PATH = "/v1/submissions"
JSON_TYPES = frozenset({"application/json", "application/json; charset=utf-8"})
# What Flask's side treats in a way of its own, or may one day: repeats, waiting, browsers, bodies without a length.
UNUSUAL = frozenset({"HTTP_IDEMPOTENCY_KEY", "HTTP_PREFER", "HTTP_ORIGIN", "HTTP_EXPECT", "HTTP_TRANSFER_ENCODING"})


class HotRoute:
    """`behind` is Flask; `on_error` makes the response of an exception, as Flask's error handlers do."""

    def __init__(
        self,
        behind: WSGIApplication,
        *,
        authentication: Authentication,
        intake: Intake,
        bytes_max: int,
        on_error: Callable[[Exception], Response],
    ) -> None:
        self.behind = behind
        self._authentication = authentication
        self._intake = intake
        self._bytes_max = bytes_max
        self._on_error = on_error

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        length = plain_length(environ, self._bytes_max)
        if length is None:
            return self.behind(environ, start_response)
        try:
            row = self._stored(environ, length)
        except Exception as error:  # noqa: BLE001  the edge: every error is an answer
            return self._on_error(error)(environ, start_response)
        content = orjson.dumps(accepted(row))
        headers = {"Content-Type": "application/json", **accepted_headers(row), "Content-Length": str(len(content))}
        start_response("202 ACCEPTED", list(headers.items()))
        return [content]  # a list: granian sends it in one piece, where it streams any other iterable

    def _stored(self, environ: WSGIEnvironment, length: int) -> Row:
        tenant = self._authentication.tenant_of(environ["HTTP_AUTHORIZATION"])
        try:
            body = environ["wsgi.input"].read(length)
        except OSError:
            raise ClientDisconnected from None  # as werkzeug's streams do
        content = parse_json(body, environ["CONTENT_TYPE"])
        row, _ = self._intake.one(tenant, content, key=None, trace=traceparent(environ.get("HTTP_TRACEPARENT")))
        return row


def plain_length(environ: WSGIEnvironment, bytes_max: int) -> int | None:
    """The body's bytes when this is a submission in its plain form and of a size we take; None: it is for Flask."""
    if environ["PATH_INFO"] != PATH or environ["REQUEST_METHOD"] != "POST":
        return None
    if environ.get("CONTENT_TYPE") not in JSON_TYPES or "HTTP_AUTHORIZATION" not in environ:
        return None
    if not UNUSUAL.isdisjoint(environ):
        return None
    text = environ.get("CONTENT_LENGTH", "")
    # As many digits as the limit has, so that nobody makes us read a number of a thousand.
    if not text.isascii() or not text.isdigit() or len(text) > len(str(bytes_max)):
        return None
    length = int(text)
    return length if length <= bytes_max else None
