"""When the next attempt is: the default backoff, the sender's expression, or what the destination asked for. Pure.

Source: the vendor's documentation of retries: min(86400, e^(2.5 n)) seconds before the n-th retry, which gives 12 s,
2.5 min, 30 min, 6 h, 24 h; `Retry-After` and `X-RateLimit-Reset*` come first, unless they name more than a day.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from services.relay.wire.duration import parse_duration
from services.relay.wire.expression import ExpressionError, evaluate_ms

DAY_SECONDS = 86_400.0
# ASCII only: float() knows other digits, but not all that str.isdigit() does.
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?")
_RESET_HEADERS = ("x-ratelimit-reset", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens")


def default_backoff_seconds(retry: int) -> float:
    """Before the `retry`-th retry; 1 is the first."""
    return min(DAY_SECONDS, math.exp(2.5 * min(retry, 10)))


def retry_delay_seconds(
    retried: int, expression: str | None, headers: Mapping[str, str], now: datetime, *, limited: bool
) -> float:
    """From now to the next attempt, after attempt number `retried` (0 is the first) failed; `headers` and `limited` as
    in `asked_delay_seconds`."""
    asked = asked_delay_seconds(headers, now, limited=limited)
    return own_delay_seconds(retried, expression) if asked is None else asked


def asked_delay_seconds(headers: Mapping[str, str], now: datetime, *, limited: bool) -> float | None:
    """How long the destination asks to wait; None when it does not, or for more than a day.

    `headers` are the answer's with lower-case names; the reset headers count only when `limited`, as providers send
    them with every answer. `Retry-After` counts always.
    """
    asked = [seconds] if (seconds := _seconds(headers.get("retry-after"), now)) is not None else []
    if limited:
        asked += [s for name in _RESET_HEADERS if (s := _seconds(headers.get(name), now)) is not None]
    return max(asked) if asked and max(asked) <= DAY_SECONDS else None


def own_delay_seconds(retried: int, expression: str | None) -> float:
    """What the message itself asks for, after attempt number `retried` failed."""
    if expression is not None:
        try:
            return min(evaluate_ms(expression, retried) / 1000, 30 * DAY_SECONDS)
        except ExpressionError:
            # It had a value when it was accepted, for the first retry; not having one now is no reason to lose a message.
            return default_backoff_seconds(retried + 1)
    return default_backoff_seconds(retried + 1)


def _seconds(value: str | None, now: datetime) -> float | None:
    if value is None:
        return None
    value = value.strip()
    if _NUMBER.fullmatch(value):
        number = float(value)
        # Some providers name the moment in Unix seconds instead of the time until then.
        return max(0.0, number - now.timestamp()) if number > 1_000_000_000 else number
    if (duration := parse_duration(value)) is not None:
        return duration
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
