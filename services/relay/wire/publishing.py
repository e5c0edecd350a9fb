"""Reading a publish request: its address out of the raw path, its options out of the headers. Pure.

Source: the vendor's documentation of publish; header names and values are case-insensitive where it says so.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from services.relay.message import CallbackOptions, Draft
from services.relay.wire.duration import parse_duration
from services.relay.wire.expression import ExpressionError, evaluate_ms
from services.relay.wire.invalid import InvalidRequestError

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
RETRIES_MAX = 1000
DELAY_SECONDS_MAX = 366 * 86_400.0
TIMEOUT_MS_MAX = 12 * 3_600_000
# Of one hop only (RFC 9110, section 7.6.1), or made anew for each delivery.
_NOT_FORWARDED = frozenset({"host", "content-length", "connection", "transfer-encoding", "keep-alive", "upgrade", "te"})
_DOUBLED = re.compile(r"^(?:v[12]/publish/)+")
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:/")
_TOKEN = re.compile(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")


def destination(raw: str) -> str:
    """The address in what follows `/v2/publish/`, as it came: `//`, `%2F` and its own query are kept.

    Tolerated: the path doubled (a common mistake in QSTASH_URL), one slash after the scheme (proxies merge them), and
    no scheme at all, taken as https. Raises `InvalidRequestError`.
    """
    text = _DOUBLED.sub("", raw)
    text = re.sub(r"^(https?):/+", r"\1://", text, flags=re.IGNORECASE)
    return _absolute(text, "destination")


def _absolute(text: str, what: str) -> str:
    text = text.strip()
    if not _SCHEME.match(text):
        text = f"https://{text}"
    try:
        parts = urlsplit(text)
        valid = parts.scheme.lower() in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
        parts = urlsplit("")
    if not valid:
        raise InvalidRequestError(f"invalid {what} url: endpoint has invalid scheme or host, add http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequestError(f"invalid {what} url: it must not hold a user or password")
    if any(ord(character) <= 32 or ord(character) == 127 for character in text):
        raise InvalidRequestError(f"invalid {what} url: it holds white space or control characters")
    return text


def canonical(name: str) -> str:
    """`test-header` → `Test-Header`."""
    return "-".join(part.capitalize() for part in name.split("-"))


def draft(url: str, headers: Mapping[str, str], body: bytes, *, protocol: int, caller_ip: str) -> Draft:
    """The message asked for by `headers` (any case). Raises `InvalidRequestError`."""
    options = {name.lower(): value for name, value in headers.items()}
    delivered = forwarded(options, "upstash-forward-")
    if "content-type" in options:
        delivered.setdefault("Content-Type", options["content-type"])
    callback = _callback(options, "upstash-callback")
    failure = _callback(options, "upstash-failure-callback")
    unknown = options.get("tidings-on-unknown", "retry").lower()
    return Draft(
        url=url,
        method=_method(options.get("upstash-method")),
        headers=delivered,
        body=body,
        protocol=protocol,
        delay_seconds=_delay(options),
        retries_max=_count(options.get("upstash-retries"), "Upstash-Retries", 3),
        retry_delay=_expression(options.get("upstash-retry-delay")),
        timeout_ms=_timeout(options.get("upstash-timeout")) or 7_200_000,
        callback=callback,
        failure_callback=failure,
        deduplication_id=_deduplication(url, options, delivered, body),
        labels=tuple(filter(None, map(str.strip, options.get("upstash-label", "").split(",")))),
        final_status=_statuses(options.get("tidings-final-status")),
        final_errors=tuple(filter(None, map(str.strip, options.get("tidings-final-error", "").split(",")))),
        error_field=options.get("tidings-error-field") or None,
        on_unknown=_on_unknown(unknown),
        caller_ip=caller_ip,
    )


def forwarded(options: Mapping[str, str], prefix: str) -> dict[str, str]:
    """What is delivered of the headers that begin with `prefix`, by canonical names."""
    found = {name.removeprefix(prefix): value for name, value in options.items() if name.startswith(prefix)}
    for name, value in found.items():
        if not _TOKEN.match(name) or any(character in value for character in "\r\n\0"):
            raise InvalidRequestError(f"{prefix}{name}: not a header name and value")
    return {canonical(name): value for name, value in found.items() if name not in _NOT_FORWARDED}


def _callback(options: Mapping[str, str], name: str) -> CallbackOptions | None:
    address = options.get(name)
    if not address:
        return None
    retries = options.get(f"{name}-retries")
    return CallbackOptions(
        url=_absolute(address, canonical(name)),
        method=_method(options.get(f"{name}-method")),
        headers=forwarded(options, f"{name}-forward-"),
        retries_max=None if retries is None else _count(retries, f"{canonical(name)}-Retries", 3),
        retry_delay=_expression(options.get(f"{name}-retry-delay")),
        timeout_ms=_timeout(options.get(f"{name}-timeout")),
        delay_seconds=_duration(options.get(f"{name}-delay"), f"{canonical(name)}-Delay"),
    )


def _method(value: str | None) -> str:
    method = (value or "POST").strip().upper()
    if method not in METHODS:
        raise InvalidRequestError(f"invalid method {method[:20]!r}: use one of {', '.join(sorted(METHODS))}")
    return method


def _count(value: str | None, name: str, default: int) -> int:
    if value is None or not value.strip():
        return default
    if not value.strip().isdigit() or int(value) > RETRIES_MAX:
        raise InvalidRequestError(f"{name} must be a whole number from 0 to {RETRIES_MAX}")
    return int(value)


def _duration(value: str | None, name: str) -> float:
    if value is None or not value.strip():
        return 0.0
    seconds = float(value) if value.strip().isdigit() else parse_duration(value)
    if seconds is None or seconds > DELAY_SECONDS_MAX:
        raise InvalidRequestError(f"{name} must be a duration of up to a year, for example 10s or 1d2h30m")
    return seconds


def _delay(options: Mapping[str, str]) -> float:
    moment = options.get("upstash-not-before")
    if moment is None:
        return _duration(options.get("upstash-delay"), "Upstash-Delay")
    if not moment.strip().isdigit():
        raise InvalidRequestError("Upstash-Not-Before must be Unix seconds")
    return min(max(0.0, float(moment) - time.time()), DELAY_SECONDS_MAX)


def _timeout(value: str | None) -> int | None:
    seconds = _duration(value, "Upstash-Timeout")
    return min(max(1, int(seconds * 1000)), TIMEOUT_MS_MAX) if seconds else None


def _expression(value: str | None) -> str | None:
    if value is None or not value.strip():
        return None
    try:
        evaluate_ms(value, 0)
    except ExpressionError as error:
        raise InvalidRequestError(f"Upstash-Retry-Delay: {error}") from None
    return value


def _statuses(value: str | None) -> tuple[int, ...]:
    items = [item.strip() for item in (value or "").split(",") if item.strip()]
    if any(not item.isdigit() or not 100 <= int(item) <= 599 for item in items):
        raise InvalidRequestError("Tidings-Final-Status must be status codes, separated by commas")
    return tuple(map(int, items))


def _on_unknown(value: str) -> Literal["retry", "fail"]:
    if value == "retry":
        return "retry"
    if value == "fail":
        return "fail"
    raise InvalidRequestError("Tidings-On-Unknown must be retry or fail")


def _deduplication(url: str, options: Mapping[str, str], delivered: Mapping[str, str], body: bytes) -> str | None:
    given = options.get("upstash-deduplication-id")
    if given:
        if ":" in given:
            raise InvalidRequestError("DeduplicationId cannot contain ':'")
        return given
    if options.get("upstash-content-based-deduplication", "").lower() != "true":
        return None
    content = hashlib.sha256(url.encode() + b"\n")
    for name in sorted(delivered):
        content.update(f"{name}:{delivered[name]}\n".encode())
    content.update(body)
    return f"content:{content.hexdigest()}"
