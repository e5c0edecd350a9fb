"""When schedules fire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.relay.protocol.cron import next_after, parse_cron
from services.relay.protocol.invalid import InvalidRequestError
from tests.unit.relay.quick import parsed, quick

MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
ZONES = ["UTC", "Europe/Istanbul", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo",
         "Asia/Beirut", "Africa/Cairo", "Asia/Kathmandu"]  # fmt: skip


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        number.map(str),
        st.integers(2, 20).map("*/{}".format),
        st.lists(number, min_size=2, max_size=4).map(lambda items: ",".join(map(str, items))),
        st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    )


# Days up to 28, so that each expression fires.
FIELDS = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)).map(" ".join)


def matches(text: str, number: int, low: int, high: int) -> bool:
    """The reference implementation: whether a field contains a number."""
    for item in text.split(","):
        body, _, step = item.partition("/")
        first, _, last = body.partition("-")
        begin, end = (low, high) if body == "*" else (int(first), int(last or first))
        if begin <= number <= end and (number - begin) % int(step or 1) == 0:
            return True
    return False


@quick
@given(FIELDS, MOMENTS)
def test_a_firing_matches_its_fields(text: str, moment: datetime) -> None:
    firing = next_after(parse_cron(text), moment)
    minute, hour, day, month, weekday = text.split()
    assert (firing.second, firing.microsecond) == (0, 0)
    assert matches(minute, firing.minute, 0, 59)
    assert matches(hour, firing.hour, 0, 23)
    assert matches(month, firing.month, 1, 12)
    days = matches(day, firing.day, 1, 31), matches(weekday, firing.isoweekday() % 7, 0, 6)
    assert all(days) if day.startswith("*") or weekday.startswith("*") else any(days)


@quick
@given(st.tuples(field(0, 59), field(0, 23)), MOMENTS)
def test_no_firing_is_missing(fields: tuple[str, str], moment: datetime) -> None:
    minute, hour = fields
    firing = next_after(parse_cron(f"{minute} {hour} * * *"), moment)
    looked_at = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
    while not (matches(minute, looked_at.minute, 0, 59) and matches(hour, looked_at.hour, 0, 23)):
        looked_at += timedelta(minutes=1)
    assert firing == looked_at


@quick
@given(FIELDS, st.sampled_from(ZONES), MOMENTS)
def test_firings_are_in_order_in_every_zone(text: str, zone: str, moment: datetime) -> None:
    cron = parse_cron(f"CRON_TZ={zone} {text}")
    assert (cron.zone, cron.fields) == (zone, text)
    first = next_after(cron, moment)
    second = next_after(cron, first)
    assert moment < first < second
    assert first.tzinfo == UTC


@quick
@given(st.integers(0, 59), st.integers(0, 23), st.sampled_from(ZONES), MOMENTS)
def test_a_daily_firing_is_at_its_local_time(minute: int, hour: int, zone: str, moment: datetime) -> None:
    firing = next_after(parse_cron(f"CRON_TZ={zone} {minute} {hour} * * *"), moment).astimezone(ZoneInfo(zone))
    asked = firing.replace(hour=hour, minute=minute)
    skipped = asked.astimezone(UTC).astimezone(ZoneInfo(zone)) != asked
    assert (firing.hour, firing.minute) == (hour, minute) or skipped


@quick
@given(field(0, 59), MOMENTS)
def test_the_first_of_six_fields_is_seconds(second: str, moment: datetime) -> None:
    firing = next_after(parse_cron(f"{second} * * * * *"), moment)
    assert matches(second, firing.second, 0, 59)
    assert moment < firing <= moment + timedelta(seconds=61)


@pytest.mark.parametrize(
    ("text", "moment", "firings"),
    [
        # 29 March 2026, Berlin: 02:00 to 03:00 is skipped. One firing, just after it.
        ("CRON_TZ=Europe/Berlin 30 2 * * *", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        # 25 October 2026: 02:00 to 03:00 occurs twice. One firing, in the first.
        ("CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        # From a time within the second.
        ("CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-25T01:10", ["2026-10-26T01:30"]),
        # An expression for every hour fires in both.
        ("CRON_TZ=Europe/Berlin */30 * * * *", "2026-10-25T00:00",
         ["2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30", "2026-10-25T02:00"]),
        ("CRON_TZ=Asia/Kathmandu 0 0 * * *", "2026-01-01T00:00", ["2026-01-01T18:15"]),
        ("0 0 29 2 *", "2026-01-01T00:00", ["2028-02-29T00:00"]),
        ("* * * * *", "2026-01-01T00:00", ["2026-01-01T00:01"]),
    ],
)  # fmt: skip
def test_known_firings(text: str, moment: str, firings: list[str]) -> None:
    cron, at = parse_cron(text), datetime.fromisoformat(moment).replace(tzinfo=UTC)
    for expected in firings:
        at = next_after(cron, at)
        assert at == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_white_space_is_removed() -> None:
    assert parse_cron("*/10 * * * * ").text == "*/10 * * * *"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "fields"),
        ("* * * *", "fields"),
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * * * MOO", "day-of-week"),
        ("0 0 31 2 *", "day-of-month"),
        ("0 0 */31 * MON#5", "never"),
        ("CRON_TZ=Mars/Olympus * * * * *", "time zone"),
        ("CRON_TZ=../../etc/passwd * * * * *", "time zone"),
        ("CRON_TZ=America * * * * *", "time zone"),
        ("9" * 300, "longer"),
        ("² * * * *", "minute"),
    ],
)
def test_an_invalid_cron_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        parse_cron(text)


@quick
@given(st.text(alphabet="0123456789*/-,#LW MONTUE?CRON_TZ=", max_size=40))
def test_any_text_is_a_cron_or_refused(text: str) -> None:
    cron = parsed(lambda: parse_cron(text))
    assert cron is None or next_after(cron, datetime(2026, 1, 1, tzinfo=UTC)) > datetime(2026, 1, 1, tzinfo=UTC)
