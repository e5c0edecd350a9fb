"""Reads a publish request: the options in its headers and query, and the message they describe. Pure.

Source: the vendor's documentation of publish. Header names and values are case-insensitive where it says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from services.relay.message import Body, Draft
from services.relay.options import NO_OPTIONS
from services.relay.protocol import values
from services.relay.protocol.address import is_option
from services.relay.protocol.headers import (
    OPTION_PREFIXES,
    folded,
    forwarded,
    incoming,
    readable,
    shown,
)
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.option_headers import read_options
from services.relay.protocol.storable import is_storable

PARAMETERS_MAX = 1000
# Each call holds its headers in memory. Servers accept 8 to 64 KiB.
HEADERS_BYTES_MAX = 64 * 1024
TIMEOUT_MS_DEFAULT = 7_200_000
DEDUPLICATION_BYTES_MAX = 1000
_TELEMETRY = "upstash-telemetry-"


def options_of(headers: Mapping[str, str], query: str) -> dict[str, str]:
    """All options of a request, by lower-case name: its headers, and the `upstash-…` and `tidings-…` parameters of its
    query.

    A header takes precedence over a parameter. Telemetry is left out, and so is the relay's own `Authorization`. Beside
    a `qstash_token`, `Authorization` is the sender's own, and `Upstash-Header-Forward` may deliver it. Other headers
    are kept for the same purpose.
    """
    options = folded(headers.items())
    token = None
    for name, value in _parameters(query):
        if name == "qstash_token":
            token = value
        elif is_option(name):
            options.setdefault(name, value)
    if token is None or options.get("authorization", "").strip() == f"Bearer {token}":
        options.pop("authorization", None)
    return {name: value for name, value in options.items() if not name.startswith(_TELEMETRY)}


def given_token(query: str) -> str | None:
    """The relay token in the query, if there is one."""
    return next((value for name, value in _parameters(query) if name == "qstash_token"), None)


def _parameters(query: str) -> list[tuple[str, str]]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=PARAMETERS_MAX, errors="surrogateescape")
    except ValueError:
        raise InvalidRequestError(f"more than {PARAMETERS_MAX} query parameters") from None
    return [(name.lower(), value) for name, value in pairs]


def merged(group_headers: Mapping[str, str | Sequence[str]], request_options: Mapping[str, str]) -> dict[str, str]:
    """The default headers of a URL group (values may be lists), overridden by those of the request."""
    defaults = {
        name.lower(): value if isinstance(value, str) else ", ".join(value) for name, value in group_headers.items()
    }
    return defaults | dict(request_options)


def draft(
    url: str,
    options: Mapping[str, str],
    body: Body,
    *,
    now_seconds: float,
    protocol: int = 2,
    caller_ip: str = "",
    queue: str | None = None,
    topic: str | None = None,
    endpoint: str | None = None,
    schedule_id: str | None = None,
) -> Draft:
    """The message that `options` (from `options_of`; any case) describe. Raises `InvalidRequestError`.

    Delivered values keep the received bytes. An option whose bytes are not UTF-8 is read as Latin-1.
    """
    raw = folded(options.items())
    options = raw if all(map(str.isascii, raw.values())) else {name: readable(value) for name, value in raw.items()}
    named = [name for name in options if name.startswith(OPTION_PREFIXES)]
    for name in named:
        if not is_storable(options[name]):
            raise InvalidRequestError(f"{shown(name)}: the value is not UTF-8, or holds a NUL")
    if sum(len(name) + len(value) for name, value in raw.items()) > HEADERS_BYTES_MAX:
        raise InvalidRequestError(f"the headers and options of a message must be at most {HEADERS_BYTES_MAX} bytes")
    own = forwarded(raw, "upstash-forward-")
    if "content-type" in raw:
        own = forwarded({"content-type": raw["content-type"]}, "") | own
    everything = values.switched_on(options.get("upstash-header-forward"))
    return Draft(
        url=url,
        method=values.method(options.get("upstash-method")),
        headers=incoming(raw) | own if everything else own,
        body=body,
        protocol=protocol,
        delay_seconds=values.delay(options.get("upstash-not-before"), options.get("upstash-delay"), now_seconds),
        retries_max=values.count(options.get("upstash-retries"), "Upstash-Retries", 3),
        timeout_ms=values.timeout_ms(options.get("upstash-timeout"), "Upstash-Timeout") or TIMEOUT_MS_DEFAULT,
        deduplication_id=_deduplication(url, topic, options, own, body),
        labels=values.labels(options.get("upstash-label")),
        queue=None if queue is None else values.name(queue, "queue name"),
        topic=topic,
        endpoint=endpoint,
        schedule_id=schedule_id,
        on_unknown=values.on_unknown(options.get("tidings-on-unknown")),
        caller_ip=caller_ip,
        options=read_options(options, raw) if named else NO_OPTIONS,
    )


def lasting(options: Mapping[str, str]) -> dict[str, str]:
    """The form of `options` that is stored and later read by `draft`: headers to forward are named, others are left
    out.
    """
    kept = {
        name: value for name, value in options.items() if name.startswith(OPTION_PREFIXES) or name == "content-type"
    }
    if values.switched_on(kept.pop("upstash-header-forward", None)):
        kept = {f"upstash-forward-{name.lower()}": value for name, value in incoming(options).items()} | kept
    return kept


def _short(deduplication_id: str) -> str:
    """An id that fits into an index of the database. A long id is replaced by its hash with a colon, which given ids
    cannot contain.
    """
    content = deduplication_id.encode()
    long = len(content) > DEDUPLICATION_BYTES_MAX
    return f"long:{hashlib.sha256(content).hexdigest()}" if long else deduplication_id


def _deduplication(
    url: str, topic: str | None, options: Mapping[str, str], own: Mapping[str, str], body: Body
) -> str | None:
    given = options.get("upstash-deduplication-id")
    if given:
        if ":" in given:
            raise InvalidRequestError("DeduplicationId cannot contain ':'")
        if re.search(r"\s", given):
            raise InvalidRequestError("DeduplicationId cannot contain white space")
        # Each endpoint of a URL group gets a separate message, and so a separate id. Given ids contain no colon.
        return _short(given if topic is None else f"{given}:{url}")
    if not values.switched_on(options.get("upstash-content-based-deduplication")):
        return None
    content = hashlib.sha256(url.encode() + b"\n")
    for name in sorted(own):
        content.update(f"{name}:{own[name]}\n".encode(errors="surrogateescape"))
    content.update(b"\n")
    # The hash stands for a stored body, which is not in memory. Bodies stored by old versions have no hash, only a key.
    content.update(body if isinstance(body, bytes) else body.sha256 or body.key.encode())
    return f"content:{content.hexdigest()}"
