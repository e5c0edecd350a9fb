"""The time at which a provider's answer allows the next call: an explicit time, or budgets with their resets. Pure.

Sources: RFC 9110, section 10.2.3 (`Retry-After`); Azure's `retry-after-ms` and `x-ms-retry-after-ms`; OpenAI's
`x-ratelimit-remaining-*` and `-reset-*` (durations), which GitHub and others write without a suffix (Unix seconds);
Anthropic's `anthropic-ratelimit-*-remaining` and `-reset` (RFC 3339); draft-ietf-httpapi-ratelimit-headers: `RateLimit`
as `limit=9, remaining=0, reset=30` (07) and as `"name";r=0;t=30` (08 on), and `RateLimit-Reset` (02).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from services.relay.outcome.duration import parse_duration

DAY_SECONDS = 86_400.0
# ASCII only: float() accepts other digits, but not all that str.isdigit() accepts. No time has more digits than this.
_NUMBER = re.compile(r"[0-9]{1,20}(?:\.[0-9]{0,20})?")
# Longer values are ignored.
_CHARACTERS_MAX = 100
_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms")
_RESETS = (
    re.compile(r"(?P<before>(?:x-)?rate-?limit-)reset(?P<after>(?:-[a-z0-9-]+)?)"),
    re.compile(r"(?P<before>anthropic-(?:ratelimit|priority)-[a-z0-9-]+-)reset(?P<after>)"),
)
# One item of a `RateLimit` header, and its parameters. Quoted names are removed first.
_QUOTED = re.compile(r'"[^"]*"')
_PARAMETER = re.compile(r"\b(r|remaining|t|reset)\s*=\s*([0-9.]+)", re.IGNORECASE)


def explicit_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """The wait in `Retry-After` and related headers. None: no readable value. `headers` have lower-case names."""
    for name in _MILLISECONDS:
        value = headers.get(name, "").strip()
        if _NUMBER.fullmatch(value):
            return float(value) / 1000
    return _seconds(headers.get("retry-after"), now)


def reset_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """The seconds until all exhausted budgets are available again. None: no budget is exhausted.

    A budget with a remainder is ignored: its reset is the time when it is *full* again. A budget without a stated
    remainder may be exhausted. A time of more than a day cannot be a rate limit's, and is ignored.
    """
    found = [seconds for remaining, seconds in _budgets(headers, now) if not remaining and seconds <= DAY_SECONDS]
    return max(found, default=None)


def _budgets(headers: Mapping[str, str], now: datetime) -> Iterator[tuple[float | None, float]]:
    """(remaining, if stated; seconds to the reset) of each budget."""
    for name, value in headers.items():
        seconds = _seconds(value, now) if (match := _reset(name)) is not None else None
        if match is not None and seconds is not None:
            yield _remaining(headers.get(f"{match['before']}remaining{match['after']}")), seconds
    yield from _items(headers.get("ratelimit"))


def _reset(name: str) -> re.Match[str] | None:
    patterns = _RESETS if len(name) <= _CHARACTERS_MAX else ()
    return next((match for pattern in patterns if (match := pattern.fullmatch(name))), None)


def _remaining(value: str | None) -> float | None:
    """None: not stated. A negative value becomes 0: some providers subtract excess requests."""
    value = (value or "").strip()
    return float(value) if _NUMBER.fullmatch(value) else 0.0 if value.startswith("-") else None


def _items(value: str | None) -> Iterator[tuple[float | None, float]]:
    """The budgets of a `RateLimit` header. Those of draft 07 are parameters of one budget, separated by commas."""
    text = _QUOTED.sub("", value or "")
    items = [text] if "reset" in text.lower() else text.split(",")
    for item in items:
        given = {name.lower()[0:3]: number for name, number in _PARAMETER.findall(item)}
        remaining, reset = given.get("r", given.get("rem")), given.get("t", given.get("res"))
        if reset is not None and _NUMBER.fullmatch(reset):
            yield _remaining(remaining), float(reset)


def _seconds(value: str | None, now: datetime) -> float | None:
    """A number of seconds, a time in Unix seconds or milliseconds, a duration, an HTTP date, or a date of RFC 3339."""
    value = (value or "")[: _CHARACTERS_MAX + 1].strip()
    if len(value) > _CHARACTERS_MAX:
        return None
    if _NUMBER.fullmatch(value):
        return _from_number(float(value), now)
    if (duration := parse_duration(value)) is not None:
        return duration
    moment = _time(value)
    try:
        return None if moment is None else max(0.0, (moment - now).total_seconds())
    except OverflowError:
        return None


def _from_number(number: float, now: datetime) -> float:
    # 1e9 s is the year 2001, and 1e11 ms is 1973. No wait is as long as the first, and no time is as early as the
    # second.
    if number > 1e11:
        number /= 1000
    return max(0.0, number - now.timestamp()) if number > 1e9 else number


def _time(value: str) -> datetime | None:
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = parse(value)
        except (ValueError, OverflowError):
            continue
        return moment.replace(tzinfo=moment.tzinfo or UTC)
    return None
