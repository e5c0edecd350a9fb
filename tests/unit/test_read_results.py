"""Which hours are compared with the number of results that were read from them."""

from __future__ import annotations

from uuid import UUID

from services.reconciler.read_results import HOUR_MS, Hour, ReadResults


def at(hours: float, random: int = 7) -> UUID:
    """An event id of that time."""
    return UUID(int=(int(hours * HOUR_MS) << 80) + random)


def start(hour: int) -> UUID:
    return at(hour, 0)


def test_every_hour_is_compared_and_the_first_and_the_last_only_in_their_read_part() -> None:
    read = ReadResults(at(10.5))
    for hours in (10.6, 12.1, 12.2, 13.1):
        read.add(at(hours))
    assert read.hours(at(0), at(13.1)) == [
        Hour(at(10.5), start(11), 1),
        Hour(start(11), start(12), 0),
        Hour(start(12), start(13), 2),
        Hour(start(13), at(13.1), 1),
    ]


def test_old_hours_are_forgotten_with_the_hour_that_is_cut() -> None:
    read = ReadResults(at(10.5))
    for hours in (10.6, 11.2, 12.1):
        read.add(at(hours))
    assert read.hours(at(11.1), at(12.5)) == [Hour(start(12), at(12.5), 1)]
    assert read.hours(at(13.1), at(12.5)) == []


def test_results_that_are_read_again_are_counted_again() -> None:
    read = ReadResults(at(10.5))
    for hours in (10.6, 11.2, 12.1):
        read.add(at(hours))
    read.forget_from(Hour(start(11), start(12), 1))
    read.add(at(11.3))
    assert read.hours(at(0), at(11.5)) == [Hour(at(10.5), start(11), 1), Hour(start(11), at(11.5), 1)]


def test_without_results_there_is_nothing_to_compare() -> None:
    assert ReadResults(at(10.5)).hours(at(0), at(10.5)) == []
