"""A request in its HTTP/1.1 format (RFC 9112, sections 3 and 5). Pure."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from yarl import URL

from services.relay.egress.http.faults import NotSentError

_PORTS = {"http": 80, "https": 443}
# Names, including those with an underscore, which clusters have, and addresses.
_HOST = re.compile(r"[A-Za-z0-9._~:-]+")
# These methods imply a body, so a server expects an explicit length of zero (RFC 9110, section 8.6).
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True)
class Origin:
    """The endpoint of a connection. `host` is ASCII and without brackets: a name, also in IDNA form, or an address."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The form of the Host header (RFC 9110, section 7.2): without the port if it is the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if _PORTS[self.scheme] == self.port else f"{host}:{self.port}"


def origin_of(text: str) -> Origin:
    """The origin of `https://host:port`, with or without text after it. Raises `ValueError`."""
    url = URL(text)
    if url.scheme not in _PORTS or not url.port or not url.raw_host or not _HOST.fullmatch(url.raw_host):
        raise ValueError("not an http or https address")
    return Origin(url.scheme, url.raw_host, url.port)


@dataclass(frozen=True, slots=True)
class Request:
    """`head` ends with the empty line, inclusive. A streamed `body` has the length that `head` declares."""

    method: str
    head: bytes
    body: bytes | AsyncGenerator[bytes, None]


def request(
    method: str, target: str, headers: Mapping[str, str], body: bytes | AsyncGenerator[bytes, None], size: int
) -> Request:
    """`headers` contain Host, and none of Content-Length, Transfer-Encoding and Connection, which this client sets.

    Raises `NotSentError` if the result would not be a single request: a line break in a header, white space in the
    target.
    """
    length = f"Content-Length: {size}\r\n" if size or method in _WITH_BODY else ""
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    head = f"{method} {target} HTTP/1.1\r\n{fields}{length}\r\n"
    lines = len(headers) + 2 + bool(length)
    if head.count("\n") != lines or head.count("\r") != lines or "\0" in head:
        raise NotSentError("a header holds a line break or NUL")
    if " " in target or " " in method:
        raise NotSentError("the destination is not a valid address")
    try:
        # Bytes that were not UTF-8 are lone surrogates, and are sent as they were received.
        return Request(method, head.encode(errors="surrogateescape"), body)
    except UnicodeEncodeError:
        raise NotSentError("a header is not text") from None


def target_of(path: str) -> str:
    """The request target for what follows scheme, host and port in a URL: never empty, without its fragment."""
    target = path.partition("#")[0]
    return target if target.startswith("/") else f"/{target}"
