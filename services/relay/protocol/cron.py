"""The firing times of a schedule: cron expressions with a time zone. Pure, except for the time zone database.

Source: the vendor's documentation of schedules: five fields, optionally after `CRON_TZ=<IANA name> `. Fields have the
meaning of Debian's cron: when neither day field begins with `*`, one matching field is sufficient. At clock changes, a
skipped time fires once, just after the gap, unless the hour begins with `*`. A repeated time fires once, the first
time, unless minute or hour begins with `*`.

cronsim parses the fields. The search is ours: the library skips the hour after a gap at midnight.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from services.relay.protocol.invalid import InvalidRequestError

CHARACTERS_MAX = 200
# An expression without a firing in this many days has none: 29 February falls on each weekday within 28 years, or 40
# around 2100.
SEARCH_DAYS_MAX = 50 * 366
# The steps of one search: jumps over whole years, and repeated times of up to an hour, one second each.
_STEPS_MAX = 10_000
_DAY, _SECOND = timedelta(days=1), timedelta(seconds=1)
_ZONE = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.*)", re.DOTALL)
_ZONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}")
# `5-5/6`: the library reads it as `5/6`, which continues to the end of the range.
_RANGE_OF_ONE = re.compile(r"(?<![^,\s])0*([0-9]+|[A-Za-z]+)-0*\1/[0-9]+(?![^,\s])", re.IGNORECASE)
# The start of a leap year.
_ANY_MOMENT = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Cron:
    """`text` is as given, trimmed. `fields` are five or, with seconds first, six. `zone` is an IANA name."""

    text: str
    fields: str
    zone: str


def parse_cron(text: str) -> Cron:
    """Parse `[CRON_TZ=<zone> ]` and five fields, or six with seconds first (ours). Raises `InvalidRequestError`."""
    text = text.strip()
    if len(text) > CHARACTERS_MAX:
        raise InvalidRequestError(f"invalid cron: longer than {CHARACTERS_MAX} characters")
    match = _ZONE.fullmatch(text)
    zone, fields = (match[1], match[2].strip()) if match else ("UTC", text)
    if _zone(zone) is None:
        raise InvalidRequestError(f"invalid cron: {zone!r} is not a known time zone")
    count = len(fields.split())
    if count not in {5, 6}:
        raise InvalidRequestError(f"invalid cron: {count} fields instead of 5 (or 6, with seconds first)")
    try:
        never = _calendar(fields).first(_ANY_MOMENT.replace(tzinfo=None)) is None
    except CronSimError as error:
        raise InvalidRequestError(f"invalid cron: {str(error)[:1].lower()}{str(error)[1:]}") from None
    if never:
        raise InvalidRequestError("invalid cron: it never fires")
    return Cron(text, fields, zone)


def next_after(cron: Cron, moment: datetime) -> datetime:
    """The first firing after `moment`, which must be aware; in UTC. Raises `ValueError` when none is found.

    The search goes from one clock change to the next, as local time and UTC run in parallel between them.
    """
    zone = _zone(cron.zone)
    if zone is None or moment.tzinfo is None:
        raise ValueError(f"no time zone {cron.zone}, or a moment without one")
    calendar = _calendar(cron.fields)
    at = moment.astimezone(UTC).replace(microsecond=0)
    start = _shown(zone, at) + _SECOND
    for _ in range(_STEPS_MAX):
        found = calendar.first(start)
        if found is None:
            break
        offset = _offset(zone, at)
        end = (found - offset).replace(tzinfo=UTC)
        near = min(end, at + _DAY)
        change = _change(zone, at, near)
        if change is not None:
            skipped_from = change.replace(tzinfo=None) + offset
            at, start = change, _shown(zone, change)
            made_up = calendar.first(skipped_from) if calendar.makes_up else None
            if made_up is not None and made_up < start:
                return change
        elif near < end:
            # No time matches for more than a day, so the clock changes until then do not matter.
            at = max(near, (found - _DAY).replace(tzinfo=zone).astimezone(UTC))
            start = _shown(zone, at)
        elif calendar.once and found.replace(tzinfo=zone).astimezone(UTC) != end:
            # The second occurrence of a repeated time.
            start = found + _SECOND
        else:
            return end
    raise ValueError(f"no firing of {cron.text!r} after {moment}")


class _Calendar:
    """The matching local times. `once` decides about repeated times, and `makes_up` about skipped ones."""

    def __init__(self, fields: str) -> None:
        self._fields = CronSim(_RANGE_OF_ONE.sub(r"\1", fields), _ANY_MOMENT)
        minute, hour = self._fields.parts[1:3]
        self.makes_up = not hour.startswith("*")
        self.once = self.makes_up and not minute.startswith("*")
        self._hours = sorted(self._fields.hours)
        self._minutes = sorted(self._fields.minutes)
        self._seconds = sorted(self._fields.seconds)

    def first(self, start: datetime) -> datetime | None:
        """The first matching time at or after `start`, which has no zone. None if there is none
        within SEARCH_DAYS_MAX.
        """
        day, moment = start.date(), self._time_from(start.time())
        if moment is not None and self._matches(day):
            return datetime.combine(day, moment)
        moment = time(self._hours[0], self._minutes[0], self._seconds[0])
        end = min(day.toordinal() + SEARCH_DAYS_MAX, date.max.toordinal())
        while (day := self._next_day(day)).toordinal() < end:
            if self._fields.match_day(day):
                return datetime.combine(day, moment)
        return None

    def _matches(self, day: date) -> bool:
        return day.month in self._fields.months and self._fields.match_day(day)

    def _next_day(self, day: date) -> date:
        """The next day in a matching month."""
        day += _DAY
        while day.month not in self._fields.months:
            day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
        return day

    def _time_from(self, start: time) -> time | None:
        for hour in self._hours:
            if hour < start.hour:
                continue
            for minute in self._minutes:
                later = (hour, minute) > (start.hour, start.minute)
                if not later and minute < start.minute:
                    continue
                for second in self._seconds:
                    if later or second >= start.second:
                        return time(hour, minute, second)
        return None


@lru_cache(maxsize=256)
def _calendar(fields: str) -> _Calendar:
    """Raises `CronSimError`. Results are cached, as each firing parses the schedule."""
    return _Calendar(fields)


def _change(zone: tzinfo, start: datetime, end: datetime) -> datetime | None:
    """The time of the clock change after `start` and up to `end`, which are at most some days apart (UTC)."""
    before = _offset(zone, start)
    if _offset(zone, end) == before:
        return None
    seconds, low = int((end - start).total_seconds()), 0
    while seconds - low > 1:
        middle = (low + seconds) // 2
        low, seconds = (low, middle) if _offset(zone, start + _SECOND * middle) != before else (middle, seconds)
    return start + _SECOND * seconds


def _shown(zone: tzinfo, moment: datetime) -> datetime:
    """The local time of `zone`, without a zone."""
    return moment.astimezone(zone).replace(tzinfo=None)


def _offset(zone: tzinfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _zone(name: str) -> tzinfo | None:
    if name == "UTC":
        return UTC
    if not _ZONE_NAME.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None
