"""Which hours are compared with how many results were read of them."""

from __future__ import annotations

from uuid import UUID

from services.reconciler.read_results import HOUR_MS, Hour, ReadResults


def at(hours: float, random: int = 7) -> UUID:
    """An event id of that time."""
    return UUID(int=(int(hours * HOUR_MS) << 80) + random)


def start(hour: int) -> UUID:
    return at(hour, 0)


def test_every_hour_is_compared_the_first_and_the_last_as_far_as_they_were_read() -> None:
    read = ReadResults(at(10.5))
    for hours in (10.6, 12.1, 12.2, 13.1):
        read.add(at(hours))
    assert read.hours(at(0), at(13.1)) == [
        Hour(at(10.5), start(11), 1),
        Hour(start(11), start(12), 0),
        Hour(start(12), start(13), 2),
        Hour(start(13), at(13.1), 1),
    ]


def test_hours_of_long_ago_are_forgotten_with_the_one_that_is_cut() -> None:
    read = ReadResults(at(10.5))
    for hours in (10.6, 11.2, 12.1):
        read.add(at(hours))
    assert read.hours(at(11.1), at(12.5)) == [Hour(start(12), at(12.5), 1)]
    assert read.hours(at(13.1), at(12.5)) == []


def test_what_is_read_again_is_counted_anew() -> None:
    read = ReadResults(at(10.5))
    for hours in (10.6, 11.2, 12.1):
        read.add(at(hours))
    read.forget_from(Hour(start(11), start(12), 1))
    read.add(at(11.3))
    assert read.hours(at(0), at(11.5)) == [Hour(at(10.5), start(11), 1), Hour(start(11), at(11.5), 1)]


def test_nothing_read_is_nothing_to_compare() -> None:
    assert ReadResults(at(10.5)).hours(at(0), at(10.5)) == []
