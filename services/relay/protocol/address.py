"""The address of a message: its destination in the raw path of the request, and options in its query. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from services.relay.protocol.headers import OPTION_PREFIXES
from services.relay.protocol.invalid import InvalidRequestError

NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_DOUBLED = re.compile(r"^(?:v[12]/publish/)+")
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:/")
_MERGED_SLASHES = re.compile(r"^(https?):/+", re.IGNORECASE)
_NOT_VISIBLE = re.compile(r"[\x00-\x20\x7f]")
_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^/?#]*)(.*)", re.DOTALL)
# Characters that no URI may contain (RFC 3986, section 2), including white space, but not the percent sign, which marks
# text that is encoded already.
_UNSAFE = re.compile(r'[^\x21-\x7e]|["<>\\^`{|}]')
_QUOTED_SCHEME = re.compile(r"^https?%3a%2f%2f", re.IGNORECASE)


@dataclass(frozen=True)
class Url:
    """An absolute http or https URL as received, except for characters that had to be percent-encoded."""

    text: str


@dataclass(frozen=True)
class GroupName:
    """The name of a URL group. If no such group exists, it may be a host without its scheme (`as_host`)."""

    text: str

    def as_host(self) -> Url | None:
        """`my.app` → `https://my.app`; None for a name without a dot."""
        return Url(absolute(self.text, "destination")) if "." in self.text.strip(".") else None


Destination = Url | GroupName


@lru_cache(maxsize=1024)
def destination(raw: str) -> Destination:
    """The destination in the text after `/v2/publish/`, as received: `//`, `%2F` and its own query are kept.

    Tolerated: a doubled path (a common mistake in QSTASH_URL), one slash after the scheme (proxies merge them), a
    completely percent-encoded address, and a missing scheme, which is read as https. Raises `InvalidRequestError`.

    Results are cached, as requests repeat the same few destinations and callbacks.
    """
    text = _DOUBLED.sub("", raw)
    if NAME.fullmatch(text):
        return GroupName(text)
    service, _, kind = text.partition("?")[0].rstrip("/").partition("/")
    if service == "api" and kind in {"llm", "email", "search"}:
        raise InvalidRequestError(f"api/{kind} is not offered: publish to the provider's own URL (a custom base URL)")
    if _QUOTED_SCHEME.match(text):
        text = unquote(text, errors="surrogateescape")
    return Url(absolute(_MERGED_SLASHES.sub(r"\1://", text), "destination"))


@lru_cache(maxsize=1024)
def absolute(text: str, what: str) -> str:
    """`text`, `encoded`, with https if it has no scheme. Raises `InvalidRequestError`, naming `what`. Results are
    cached.
    """
    text = text.strip()
    if not _SCHEME.match(text):
        text = f"https://{text}"
    try:
        parts = urlsplit(text)
        valid = parts.scheme.lower() in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        named = parts.username is not None or parts.password is not None
    except ValueError:
        valid, named = False, False
    if not valid:
        raise InvalidRequestError(f"invalid {what} url: endpoint has invalid scheme or host, add http:// or https://")
    if named:
        raise InvalidRequestError(f"invalid {what} url: it must not hold a user or password")
    if _NOT_VISIBLE.search(text):
        raise InvalidRequestError(f"invalid {what} url: it holds white space or control characters")
    try:
        text = encoded(text)
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"invalid {what} url: it is not UTF-8") from None
    return text


def encoded(url: str) -> str:
    """`url` in a form that fits into a request line: characters that no URI may contain are percent-encoded after the
    host.

    The request, its signature, and `url` in answers and filters thus agree. Text that is encoded already keeps its
    bytes. So does the host, which has an encoding of its own (IDNA). Raises `UnicodeEncodeError` for characters that
    represent no bytes.
    """
    if not _UNSAFE.search(url) or (match := _PARTS.fullmatch(url)) is None:
        return url
    return match[1] + percent_encoded(match[2])


def percent_encoded(text: str) -> str:
    """Percent-encode the characters that no URI may contain: their UTF-8 bytes, or the received bytes that were not
    UTF-8.
    """
    return _UNSAFE.sub(lambda found: "".join(f"%{b:02X}" for b in found[0].encode(errors="surrogateescape")), text)


def separated(tail: str) -> tuple[str, str]:
    """Split the text after `/publish/` into (destination, query of options).

    The query belongs to the destination and keeps its bytes, except for parameters named `upstash-…`, `tidings-…` and
    `qstash_token`, which are options and are removed.
    """
    address, mark, query = tail.partition("?")
    own: list[str] = []
    options: list[str] = []
    for part in query.split("&") if mark else []:
        (options if is_option(part.partition("=")[0]) else own).append(part)
    if not options:
        return tail, ""
    return (f"{address}?{'&'.join(own)}" if own else address), "&".join(options)


def is_option(name: str) -> bool:
    """Whether a query parameter of this (raw) name is an option of the relay. Others belong to the destination."""
    lowered = name.lower()
    return lowered.startswith(OPTION_PREFIXES) or lowered == "qstash_token"
