"""Flow control in the sender's notation: a key's limits, pins, and what is unpinned. Pure.

Source: the vendor's documentation of flow control: `parallelism=5, rate=10, period=1m`. The period is 1 s by default
and at most a week.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl

from services.relay.options import FlowControl
from services.relay.outcome.duration import parse_duration
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.values import switched_on, whole

PERIOD_SECONDS_MAX = 7 * 86_400
LIMIT_MAX = 2**31 - 1
KEY_CHARACTERS_MAX = 256
_NEITHER = "Upstash-Flow-Control-Value should be either rate=X or parallelism=Y, or both as comma-separated values"


@dataclass(frozen=True)
class Pin:
    """Limits that messages do not change. None: this request does not pin the limit. A rate has its period."""

    parallelism: int | None
    rate: int | None
    period_seconds: int | None


@dataclass(frozen=True)
class Unpin:
    """The settings that messages change again: limits, and whether the key cools."""

    parallelism: bool
    rate: bool
    cooling: bool = False


def parse_flow_control(key: str, value: str, *, cooling: bool = True) -> FlowControl:
    """The limits in `Upstash-Flow-Control-Value`. Raises `InvalidRequestError`."""
    if not key or len(key) > KEY_CHARACTERS_MAX or not key.isprintable():
        raise InvalidRequestError(f"Upstash-Flow-Control-Key must be 1 to {KEY_CHARACTERS_MAX} printable characters")
    items = [item.partition("=") for item in value.split(",")]
    given = {name.strip().lower(): number.strip() for name, _, number in items}
    if len(given) != len(items) or not set(given) <= {"parallelism", "rate", "period"}:
        raise InvalidRequestError(_NEITHER)
    parallelism, rate = _limit(given, "parallelism"), _limit(given, "rate")
    if parallelism is None and rate is None:
        raise InvalidRequestError(_NEITHER)
    return FlowControl(key, parallelism, rate, _period(given.get("period")), cooling)


def parse_pin(query: str) -> Pin:
    """The query of `POST /v2/flowControl/{key}/pin`: parallelism, or rate with its period, or both."""
    given = _query(query, {"parallelism", "rate", "period"})
    parallelism, rate = _limit(given, "parallelism"), _limit(given, "rate")
    if parallelism is None and rate is None:
        raise InvalidRequestError("a pin needs parallelism or rate")
    if rate is None and "period" in given:
        raise InvalidRequestError("a period is pinned with its rate")
    return Pin(parallelism, rate, None if rate is None else _period(given.get("period")))


def parse_unpin(query: str) -> Unpin:
    """The query of `POST /v2/flowControl/{key}/unpin`: `parallelism=true`, `rate=true`, `cooling=true` (ours)."""
    given = _query(query, {"parallelism", "rate", "cooling"})
    unpin = Unpin(*(switched_on(given.get(name)) for name in ("parallelism", "rate", "cooling")))
    if unpin == Unpin(parallelism=False, rate=False):
        raise InvalidRequestError("to unpin, parallelism=true or rate=true is needed, or cooling=true")
    return unpin


def _query(query: str, known: set[str]) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    given.pop("qstash_token", None)
    if unknown := set(given) - known:
        raise InvalidRequestError(f"unknown parameter {min(unknown)[:50]!r}")
    return given


def _limit(given: dict[str, str], name: str) -> int | None:
    if name not in given:
        return None
    number = whole(given[name])
    if number is None or not 1 <= number <= LIMIT_MAX:
        raise InvalidRequestError(f"{name} must be a whole number from 1 to {LIMIT_MAX}")
    return number


def _period(value: str | None) -> int:
    if value is None:
        return 1
    number = whole(value)
    seconds = parse_duration(value) if number is None else float(number)
    if seconds is None or seconds != int(min(seconds, LIMIT_MAX)) or not 1 <= seconds <= PERIOD_SECONDS_MAX:
        raise InvalidRequestError("period must be whole seconds, at least 1 and at most a week, for example 10s or 1m")
    return int(seconds)
