"""Reads a publish request: the options in its headers and query, and the message they describe. Pure.

Source: the vendor's documentation of publish. Header names and values are case-insensitive where it says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from services.relay.message import Body, CallbackOptions, Draft, FlowControl, StartedCallback
from services.relay.protocol import values
from services.relay.protocol.address import Destination, GroupName, Url, absolute, destination, is_option, separated
from services.relay.protocol.flow import parse_flow_control
from services.relay.protocol.headers import (
    OPTION_PREFIXES,
    canonical,
    folded,
    forwarded,
    incoming,
    is_deliverable,
    is_storable,
    readable,
    shown,
)
from services.relay.protocol.invalid import InvalidRequestError

__all__ = [
    "Destination",
    "GroupName",
    "InvalidRequestError",
    "Url",
    "canonical",
    "destination",
    "draft",
    "given_token",
    "merged",
    "options_of",
    "separated",
]

PARAMETERS_MAX = 1000
# Each call holds its headers in memory. Servers accept 8 to 64 KiB.
HEADERS_BYTES_MAX = 64 * 1024
TIMEOUT_MS_DEFAULT = 7_200_000
DEDUPLICATION_BYTES_MAX = 1000
_TELEMETRY = "upstash-telemetry-"
# Names after `Upstash-Callback-`. A header with one of these names or prefixes is an option of the callback, with the
# meaning that the name without `-Callback` has for a publish. The vendor's workflows are included, though the relay has
# none.
_CALLBACK_OPTIONS = frozenset(
    {
        "method", "retries", "retry-delay", "timeout", "delay", "not-before", "label", "deduplication-id",
        "content-based-deduplication", "flow-control-key", "flow-control-value", "redact-fields", "header-forward", "cron",
    }
)  # fmt: skip
_CALLBACK_PREFIXES = ("forward-", "workflow-")


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
    for name, value in options.items():
        if name.startswith(OPTION_PREFIXES) and not is_storable(value):
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
        retry_delay=values.expression(options.get("upstash-retry-delay"), "Upstash-Retry-Delay"),
        timeout_ms=values.timeout_ms(options.get("upstash-timeout"), "Upstash-Timeout") or TIMEOUT_MS_DEFAULT,
        callback=_callback(options, raw, "upstash-callback"),
        failure_callback=_callback(options, raw, "upstash-failure-callback"),
        started_callback=_started_callback(options, raw),
        deduplication_id=_deduplication(url, topic, options, own, body),
        labels=values.labels(options.get("upstash-label")),
        queue=None if queue is None else values.name(queue, "queue name"),
        flow=_flow(options),
        redact=values.redaction(options.get("upstash-redact-fields")),
        topic=topic,
        endpoint=endpoint,
        schedule_id=schedule_id,
        final_status=values.statuses(options.get("tidings-final-status")),
        final_errors=values.listed(options.get("tidings-final-error")),
        error_field=options.get("tidings-error-field") or None,
        on_unknown=values.on_unknown(options.get("tidings-on-unknown")),
        public_only=values.public_only(options.get("tidings-addresses")),
        caller_ip=caller_ip,
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


def _callback(options: Mapping[str, str], raw: Mapping[str, str], name: str) -> CallbackOptions | None:
    address = raw.get(name)
    if not address:
        return None
    shown = canonical(name)
    retries = options.get(f"{name}-retries")
    return CallbackOptions(
        url=absolute(address, shown),
        method=values.method(options.get(f"{name}-method")),
        headers=_of_callback(raw, name),
        retries_max=None if retries is None else values.count(retries, f"{shown}-Retries", 3),
        retry_delay=values.expression(options.get(f"{name}-retry-delay"), f"{shown}-Retry-Delay"),
        timeout_ms=values.timeout_ms(options.get(f"{name}-timeout"), f"{shown}-Timeout"),
        delay_seconds=values.duration(options.get(f"{name}-delay"), f"{shown}-Delay"),
    )


def _of_callback(options: Mapping[str, str], name: str) -> dict[str, str]:
    """The headers of a callback: those with `-Forward-`, and those with a name that is not an option.

    The vendor's documentation has only the first kind. Its Python client creates the second from `callback_headers`,
    which it promises to forward with the callback.
    """
    prefix = f"{name}-"
    named = {option.removeprefix(prefix): value for option, value in options.items() if option.startswith(prefix)}
    bare = {
        option: value
        for option, value in named.items()
        if option not in _CALLBACK_OPTIONS
        and not option.startswith(_CALLBACK_PREFIXES)
        and is_deliverable(option, value)
    }
    return forwarded(bare, "") | forwarded(options, f"{prefix}forward-")


def _started_callback(options: Mapping[str, str], raw: Mapping[str, str]) -> StartedCallback | None:
    address = raw.get("tidings-started-callback")
    if not address:
        return None
    return StartedCallback(
        absolute(address, "Tidings-Started-Callback"), values.started_data(options.get("tidings-started-data"))
    )


def _flow(options: Mapping[str, str]) -> FlowControl | None:
    key, value = options.get("upstash-flow-control-key"), options.get("upstash-flow-control-value")
    if key is None and value is None:
        return None
    cooling = options.get("tidings-cooling", "on").strip().lower()
    if cooling not in {"on", "off"}:
        raise InvalidRequestError("Tidings-Cooling must be on or off")
    return parse_flow_control(key or "", value or "", cooling=cooling == "on")


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
