"""Header names and values from senders: canonical names, and which headers may be delivered. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.storable import is_storable

# Hop-by-hop headers (RFC 9110, section 7.6.1), and headers that are created for each delivery.
_OF_ONE_HOP = frozenset(
    {
        "host", "content-length", "connection", "transfer-encoding", "keep-alive", "upgrade", "te", "trailer",
        "expect", "proxy-connection", "proxy-authenticate", "proxy-authorization",
    }
)  # fmt: skip
OPTION_PREFIXES = ("upstash-", "tidings-")
# The longest name that is cached. Providers repeat the same few names in each answer; longer names, of up to 64 KiB,
# are not cached.
_REMEMBERED_CHARACTERS_MAX = 64
_LINE_END = re.compile(r"[\r\n\0]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def canonical(name: str) -> str:
    """`test-header` → `Test-Header`."""
    return _canonical(name) if len(name) <= _REMEMBERED_CHARACTERS_MAX else _canonical.__wrapped__(name)


@lru_cache(1024)
def _canonical(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))


def forwarded(options: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The headers to deliver from the options that begin with `prefix`, by canonical names. Raises
    `InvalidRequestError`.
    """
    found = {name.removeprefix(prefix): value for name, value in options.items() if name.startswith(prefix)}
    for name, value in found.items():
        if not is_deliverable(name, value):
            raise InvalidRequestError(f"{prefix}{shown(name)}: not a header name and value")
    return {canonical(name): value for name, value in found.items() if name not in _OF_ONE_HOP}


def is_deliverable(name: str, value: str) -> bool:
    """Whether these are a valid header name and value. The value may be bytes of any encoding (RFC
    9110, section 5.5).
    """
    return _TOKEN.fullmatch(name) is not None and _LINE_END.search(value) is None and _has_bytes(value)


def _has_bytes(value: str) -> bool:
    if value.isascii():
        return True
    try:
        value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def listed(headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """An answer's headers in the protocol's form: names spelled as Go spells them, each with an array of values.

    Receivers written for the hosted service index by `Content-Type`, whatever the destination wrote.
    """
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(canonical(name), []).append(value)
    return found


def readable(value: str) -> str:
    """A header's value as text. Bytes that are not UTF-8, which HTTP clients keep as lone surrogates, are read as
    Latin-1.
    """
    if value.isascii() or is_storable(value.replace("\0", "")) or not _has_bytes(value):
        return value
    content = value.encode(errors="surrogateescape")
    return content.decode("latin-1")


def shown(text: str) -> str:
    """A part of the sender's text, for the message of an error."""
    return ascii(text[:50])[1:-1]


def incoming(options: Mapping[str, str]) -> dict[str, str]:
    """The headers that `Upstash-Header-Forward` delivers: all of the request but options and hop-by-hop headers."""
    named = {name.strip().lower() for name in options.get("connection", "").split(",")}
    kept = {
        name: value
        for name, value in options.items()
        if not name.startswith(OPTION_PREFIXES) and name not in named and name != "content-type"
    }
    return forwarded(kept, "")


def folded(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by lower-case name. Repeated headers to deliver are joined (RFC 9110, section 5.3). For an option the
    first one counts.
    """
    found: dict[str, str] = {}
    for name, value in items:
        lowered = name.lower()
        if lowered not in found:
            found[lowered] = value
        elif "-forward-" in lowered or not (lowered.startswith(OPTION_PREFIXES) or lowered == "content-type"):
            found[lowered] += f"{'; ' if lowered.endswith('cookie') else ', '}{value}"
    return found
