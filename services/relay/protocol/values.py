"""The values of single options: numbers, durations, names, lists. An invalid value raises
`InvalidRequestError`. Pure.
"""

from __future__ import annotations

import re
from typing import Literal

from services.relay.options import NOTHING_REDACTED, Redaction
from services.relay.outcome.duration import parse_duration
from services.relay.outcome.expression import ExpressionError, evaluate_ms
from services.relay.protocol.address import NAME
from services.relay.protocol.invalid import InvalidRequestError

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
RETRIES_MAX = 1000
DELAY_SECONDS_MAX = 366 * 86_400.0
TIMEOUT_MS_MAX = 12 * 3_600_000
LABELS_MAX = 50
LABEL_CHARACTERS_MAX = 256
# Enough for a token or an id. Each attempt that starts holds it in memory, and its start notice contains it.
STARTED_DATA_BYTES_MAX = 256
# No option needs more digits, and int() refuses some thousands.
_WHOLE = re.compile(r"[0-9]{1,15}")
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_REDACTED_HEADER = re.compile(r"headers?\[([^\[\]]{1,200})\]", re.IGNORECASE)


def whole(value: str) -> int | None:
    """A whole number in ASCII digits, or None."""
    value = value.strip()
    return int(value) if _WHOLE.fullmatch(value) else None


def method(value: str | None) -> str:
    name = (value or "POST").strip().upper()
    if name not in METHODS:
        raise InvalidRequestError(f"invalid method {name[:20]!r}: use one of {', '.join(sorted(METHODS))}")
    return name


def count(value: str | None, name: str, default: int) -> int:
    if value is None or not value.strip():
        return default
    number = whole(value)
    if number is None or number > RETRIES_MAX:
        raise InvalidRequestError(f"{name} must be a whole number from 0 to {RETRIES_MAX}")
    return number


def duration(value: str | None, name: str) -> float:
    """Seconds; 0 when no value is given."""
    if value is None or not value.strip():
        return 0.0
    number = whole(value)
    seconds = parse_duration(value) if number is None else float(number)
    if seconds is None or seconds > DELAY_SECONDS_MAX:
        raise InvalidRequestError(f"{name} must be a duration of up to a year, for example 500ms, 10s or 1d2h30m")
    return seconds


def delay(not_before: str | None, value: str | None, now_seconds: float) -> float:
    """Seconds from now. `Upstash-Not-Before` takes precedence over `Upstash-Delay`."""
    if not_before is None or not not_before.strip():
        return duration(value, "Upstash-Delay")
    if not _SECONDS.fullmatch(not_before.strip()):
        raise InvalidRequestError("Upstash-Not-Before must be Unix seconds")
    return min(max(0.0, float(not_before) - now_seconds), DELAY_SECONDS_MAX)


def timeout_ms(value: str | None, name: str) -> int | None:
    seconds = duration(value, name)
    return min(max(1, int(seconds * 1000)), TIMEOUT_MS_MAX) if seconds else None


def expression(value: str | None, name: str) -> str | None:
    """A retry expression, as received. Whether it has a value for each retry is unknown until then."""
    if value is None or not value.strip():
        return None
    try:
        evaluate_ms(value, 0)
    except ExpressionError as error:
        raise InvalidRequestError(f"{name}: {error}") from None
    return value.strip()


def listed(value: str | None) -> tuple[str, ...]:
    """The items of a comma-separated list, trimmed, without empty ones."""
    return tuple(filter(None, map(str.strip, (value or "").split(","))))


def labels(value: str | None) -> tuple[str, ...]:
    items = tuple(dict.fromkeys(listed(value)))
    if len(items) > LABELS_MAX:
        raise InvalidRequestError(f"Upstash-Label must be at most {LABELS_MAX} labels, separated by commas")
    if any(len(item) > LABEL_CHARACTERS_MAX for item in items):
        raise InvalidRequestError(f"Upstash-Label: a label has at most {LABEL_CHARACTERS_MAX} characters")
    return items


def statuses(value: str | None) -> tuple[int, ...]:
    numbers = [whole(item) for item in listed(value)]
    valid = tuple(number for number in numbers if number is not None and 100 <= number <= 599)
    if len(valid) != len(numbers):
        raise InvalidRequestError("Tidings-Final-Status must be status codes, separated by commas")
    return valid


def on_unknown(value: str | None) -> Literal["retry", "fail"]:
    match (value or "retry").strip().lower():
        case "retry":
            return "retry"
        case "fail":
            return "fail"
    raise InvalidRequestError("Tidings-On-Unknown must be retry or fail")


def started_data(value: str | None) -> str:
    if len((value or "").encode()) > STARTED_DATA_BYTES_MAX:
        raise InvalidRequestError(f"Tidings-Started-Data must be at most {STARTED_DATA_BYTES_MAX} bytes")
    return value or ""


def public_only(value: str | None) -> bool:
    match (value or "allowed").strip().lower():
        case "allowed":
            return False
        case "public":
            return True
    raise InvalidRequestError("Tidings-Addresses must be public or allowed")


def switched_on(value: str | None) -> bool:
    """`true` (sent by the JavaScript client) or `True` (by the Python client)."""
    return (value or "").strip().lower() == "true"


def name(value: str, what: str) -> str:
    """The name of a queue, a URL group or a schedule."""
    if not NAME.fullmatch(value):
        raise InvalidRequestError(f"invalid {what}: it must be 1 to 200 letters, digits, '.', '_' or '-'")
    return value


def redaction(value: str | None) -> Redaction:
    """Parse `body, header[Authorization]`. `header` (in the clients) and `headers` (in the documentation) are
    equivalent.
    """
    if not value:
        return NOTHING_REDACTED
    body, all_headers, headers = False, False, set()
    for item in listed(value):
        named = _REDACTED_HEADER.fullmatch(item)
        if named is not None:
            headers.add(named[1].strip().lower())
        elif item.lower() == "body":
            body = True
        elif item.lower() in {"header", "headers"}:
            all_headers = True
        else:
            raise InvalidRequestError("Upstash-Redact-Fields must be of body, header and header[Name], comma-separated")
    return Redaction(body, all_headers, frozenset(headers))
