"""Schedules around changes of the clocks, compared with a reference that checks every minute separately."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.relay.protocol.cron import next_after, parse_cron
from tests.unit.relay.test_cron import matches

MINUTE = timedelta(minutes=1)
# Zones and days of their clock changes: at midnight and before it, by half an hour and by two hours, in both
# directions.
CHANGES = [
    ("America/Havana", "2026-03-08"), ("America/Havana", "2026-11-01"),
    ("Atlantic/Azores", "2026-03-29"), ("Atlantic/Azores", "2026-10-25"),
    ("Africa/Cairo", "2026-04-24"), ("Africa/Cairo", "2026-10-29"),
    ("Australia/Lord_Howe", "2026-10-04"), ("Australia/Lord_Howe", "2026-04-05"),
    ("Europe/Berlin", "2026-03-29"), ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"), ("America/New_York", "2026-11-01"),
    ("Asia/Beirut", "2026-03-29"), ("America/St_Johns", "2026-11-01"), ("Antarctica/Troll", "2026-03-29"),
    ("America/Nuuk", "2026-03-28"), ("Africa/Casablanca", "2026-02-15"), ("Asia/Kathmandu", "2026-01-01"),
]  # fmt: skip


class Oracle:
    """Each minute at which an expression fires, by the documented rule. Nothing is searched or skipped."""

    def __init__(self, text: str, zone: str) -> None:
        minute, hour, day, month, weekday = text.split()
        self.zone = ZoneInfo(zone)
        self.makes_up = not hour.startswith("*")
        self.once = self.makes_up and not minute.startswith("*")
        self.day_and = day.startswith("*") or weekday.startswith("*")
        bounds = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
        self.sets = [
            {number for number in range(low, high + 1) if matches(part, number, low, high)}
            for part, (low, high) in zip((minute, hour, day, month, weekday), bounds, strict=True)
        ]

    def firings(self, start: datetime, end: datetime) -> Iterator[datetime]:
        before = start.astimezone(self.zone).replace(tzinfo=None)
        at = start + MINUTE
        while at <= end:
            shown = at.astimezone(self.zone)
            naive = shown.replace(tzinfo=None)
            skipped = [before + MINUTE * n for n in range(1, int((naive - before) / MINUTE))]
            if (self.hits(naive) and not (self.once and shown.fold)) or (
                self.makes_up and any(self.hits(one) for one in skipped)
            ):
                yield at
            before, at = naive, at + MINUTE

    def hits(self, naive: datetime) -> bool:
        minutes, hours, days, months, weekdays = self.sets
        if naive.minute not in minutes or naive.hour not in hours or naive.month not in months:
            return False
        found = (naive.day in days, naive.isoweekday() % 7 in weekdays)
        return all(found) if self.day_and else any(found)


def firings(text: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    found, at = [], start
    cron = parse_cron(f"CRON_TZ={zone} {text}")
    while (at := next_after(cron, at)) <= end:
        found.append(at)
    return found


def field(low: int, high: int, often: range) -> st.SearchStrategy[str]:
    """Mostly of the hours and minutes around clock changes."""
    number = st.sampled_from(often) | st.integers(low, high)
    pair = st.tuples(number, number).map(sorted)
    return st.one_of(
        st.just("*"),
        number.map(str),
        st.integers(2, 20).map("*/{}".format),
        st.lists(number, min_size=2, max_size=4).map(lambda items: ",".join(map(str, items))),
        pair.map(lambda p: f"{p[0]}-{p[1]}"),
        st.tuples(pair, st.integers(1, 12)).map(lambda p: f"{p[0][0]}-{p[0][1]}/{p[1]}"),
    )


DAYS = st.sampled_from(["*", "*", "*/2", "1-15", "8,29", "1,25"])
WEEKDAYS = st.sampled_from(["*", "*", "0", "0-1", "5", "6", "1-5", "5-5/2"])
TEXTS = st.tuples(field(0, 59, range(0, 60, 15)), field(0, 23, range(6)), DAYS, st.just("*"), WEEKDAYS).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.sampled_from(CHANGES), st.integers(0, 36 * 60))
def test_around_a_clock_change_the_firings_are_those_of_the_reference(
    text: str, change: tuple[str, str], offset: int
) -> None:
    zone, day = change
    midnight = datetime.combine(date.fromisoformat(day), datetime.min.time(), ZoneInfo(zone)).astimezone(UTC)
    start = midnight - timedelta(hours=24) + MINUTE * offset
    end = midnight + timedelta(hours=36)
    assert firings(text, zone, start, end) == list(Oracle(text, zone).firings(start, end))


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        # The gap is 00:00 to 01:00, and the time in the expression is after it.
        ("CRON_TZ=America/Havana */3 1 * * 0", "2026-03-07T12:30", ["2026-03-08T05:00", "2026-03-08T05:03"]),
        ("CRON_TZ=Atlantic/Azores */30 1 * * 0", "2026-03-28T12:30", ["2026-03-29T01:00", "2026-03-29T01:30"]),
        ("CRON_TZ=Africa/Cairo */30 1 * * 5", "2026-04-23T12:30", ["2026-04-23T22:00", "2026-04-23T22:30"]),
        # A time in the gap fires once after it, unless the expression is for all hours of the day.
        ("CRON_TZ=America/Havana */15 0 * * *", "2026-03-07T12:30", ["2026-03-08T05:00", "2026-03-09T04:00"]),
        ("CRON_TZ=America/Havana 0,30 0 * * 0", "2026-03-07T12:30", ["2026-03-08T05:00", "2026-03-15T04:00"]),
        ("CRON_TZ=America/Havana * */10 * * 0", "2026-03-07T12:30", ["2026-03-08T14:00"]),
        ("CRON_TZ=Europe/Berlin 17 * * * *", "2026-03-29T00:20", ["2026-03-29T01:17"]),
        # A change by half an hour.
        ("CRON_TZ=Australia/Lord_Howe */5 5 * * *", "2026-10-03T10:00", ["2026-10-03T18:00", "2026-10-03T18:05"]),
        ("CRON_TZ=Australia/Lord_Howe 15 2 * * *", "2026-10-03T10:00", ["2026-10-03T15:30", "2026-10-04T15:15"]),
        ("CRON_TZ=Australia/Lord_Howe 45 1 * * *", "2026-04-04T10:00", ["2026-04-04T14:45", "2026-04-05T15:15"]),
        # The same with seconds.
        ("CRON_TZ=Europe/Berlin 5 30 2 * * *", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30:05"]),
        ("CRON_TZ=Europe/Berlin 5 30 2 * * *", "2026-10-24T12:00", ["2026-10-25T00:30:05", "2026-10-26T01:30:05"]),
        # A range of one number is that number.
        ("5 5-5/6 * * *", "2026-01-01T05:04", ["2026-01-01T05:05", "2026-01-02T05:05"]),
        ("2-02/6 0 * * MON-MON/3", "2026-01-01T00:00", ["2026-01-05T00:02", "2026-01-12T00:02"]),
        # A distant time.
        ("CRON_TZ=Europe/Berlin 30 2 29 2 MON#5", "2026-01-01T00:00", ["2028-02-29T01:30"]),
        ("CRON_TZ=Europe/Berlin 30 2 29 2-2/2 */7", "2026-01-01T00:00", ["2032-02-29T01:30"]),
    ],
)
def test_known_firings(text: str, after: str, expected: list[str]) -> None:
    cron, at = parse_cron(text), datetime.fromisoformat(after).replace(tzinfo=UTC)
    for one in expected:
        at = next_after(cron, at)
        assert at == datetime.fromisoformat(one).replace(tzinfo=UTC)
