"""The head of a request as the server in front of Flask parses it. It is checked once, for all routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from services.api.problem import Fault, ProblemError


@dataclass(frozen=True, slots=True)
class Head:
    """`path` is decoded and is text as in WSGI: one character per byte.
    Header names are in lower case, values unchanged; a repeated header is joined with commas (RFC 9110, section 5.3).
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    version: str

    def length(self) -> int | None:
        """The length of the body in bytes; None if it is chunked, 0 if there is none."""
        if "transfer-encoding" in self.headers:
            return None
        text = self.headers.get("content-length", "0")
        # The server has parsed the number already; a longer one exceeds every limit.
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 10**15


def read_head(scope: Mapping[str, Any]) -> Head:
    """Raises `ProblemError`: 400 unless there is exactly one Host (RFC 9112, section 3.2), 415 for an encoded body."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name in headers:
            if name == "host":
                raise ProblemError(400, "the request has two Host headers", Fault("Host", "came twice"))
            value = f"{headers[name]},{value}"
        headers[name] = value
    # The server adds an empty Host if the request has none.
    if not headers.get("host") and scope["http_version"] == "1.1":
        raise ProblemError(400, "the request has no Host header", Fault("Host", "is missing"))
    if headers.get("content-encoding", "identity").strip().lower() not in {"identity", ""}:
        raise ProblemError(415, "an encoded body is not accepted", Fault("Content-Encoding", "must be identity"))
    path = scope["raw_path"].decode("latin-1")
    if "%" in path:
        path = unquote_to_bytes(path).decode("latin-1")
    return Head(scope["method"], path, scope["query_string"].decode("latin-1"), headers, scope["http_version"])
