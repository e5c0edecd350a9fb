"""The time of the next attempt: by the default backoff, the sender's expression, or the destination's request. Pure.

Source: the vendor's documentation of retries: min(86400, e^(2.5 n)) seconds before the n-th retry, which gives 12 s,
2.5 min, 30 min, 6 h, 24 h. A time in the answer's headers takes precedence, unless it is more than a day.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

from services.relay.outcome.expression import ExpressionError, evaluate_ms
from services.relay.outcome.rate_limits import DAY_SECONDS, explicit_seconds, reset_seconds

# A reset is the provider's estimate for a budget, not a request to wait. It pauses a whole flow key for at most this
# long. After that the key lets one call through as a test.
PAUSE_SECONDS_MAX = 3600.0


def default_backoff_seconds(retry: int) -> float:
    """The seconds before the `retry`-th retry; 1 is the first."""
    return min(DAY_SECONDS, math.exp(2.5 * min(retry, 10)))


def retry_delay_seconds(
    retried: int, expression: str | None, headers: Mapping[str, str], now: datetime, *, limited: bool
) -> float:
    """The seconds from now to the next attempt, after attempt number `retried` (0 is the first) failed. `headers` and
    `limited` are as in `requested_delay_seconds`.
    """
    asked = requested_delay_seconds(headers, now, limited=limited)
    return own_delay_seconds(retried, expression) if asked is None else asked


def requested_delay_seconds(headers: Mapping[str, str], now: datetime, *, limited: bool) -> float | None:
    """How long the destination asks to wait. None when it does not ask, or asks for more than a day.

    `headers` are the answer's, with lower-case names. An explicit `Retry-After` takes precedence. Without one the
    resets of exhausted budgets count, but only when `limited`, as providers send them with every answer.
    """
    asked = explicit_seconds(headers, now)
    if asked is None and limited:
        asked = reset_seconds(headers, now)
    return asked if asked is not None and asked <= DAY_SECONDS else None


def requested_pause_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """How long a message's whole flow key must pause after a 429 or 503. Otherwise as `requested_delay_seconds`."""
    asked = requested_delay_seconds(headers, now, limited=True)
    if asked is None or explicit_seconds(headers, now) is not None:
        return asked
    return min(asked, PAUSE_SECONDS_MAX)


def own_delay_seconds(retried: int, expression: str | None) -> float:
    """The delay that the message itself asks for, after attempt number `retried` failed."""
    if expression is not None:
        try:
            return min(evaluate_ms(expression, retried) / 1000, 30 * DAY_SECONDS)
        except ExpressionError:
            # The expression had a value for the first retry when the message was accepted. A missing value now must not
            # lose the message.
            return default_backoff_seconds(retried + 1)
    return default_backoff_seconds(retried + 1)
