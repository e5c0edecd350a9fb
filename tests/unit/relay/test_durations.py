"""Durations in the formats of the protocol and of providers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.relay.outcome.duration import parse_duration
from services.relay.protocol.values import DELAY_SECONDS_MAX, delay, duration, timeout_ms, whole
from tests.unit.relay.quick import parsed, quick

SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
PARTS = st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(sorted(SECONDS))), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("1d10h30m", 124_200),
        ("6m5s", 365),
        ("20ms", 0.02),
        ("1.5s", 1.5),
        (" 7s ", 7),
        ("", None),
        ("5", None),
        ("s", None),
        ("5s ago", None),
        ("-5s", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


@quick
@given(PARTS)
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert parse_duration(text) == pytest.approx(sum(number * SECONDS[unit] for number, unit in parts))


@quick
@given(st.floats(0, 100_000, allow_nan=False).map(lambda value: round(value, 6)))
def test_fractions_in_gos_format(seconds: float) -> None:
    assert parse_duration(f"{seconds:f}s") == pytest.approx(seconds)


@quick
@given(st.text(alphabet="0123456789.smhdnuµ ²٣-", max_size=30))
def test_any_text_is_an_option_of_seconds_or_refused(text: str) -> None:
    seconds = parsed(lambda: duration(text, "Upstash-Delay"))
    assert seconds is None or 0 <= seconds <= DELAY_SECONDS_MAX


@pytest.mark.parametrize("text", ["²", "9" * 5000, "1e3", "0x10", ""])
def test_only_ascii_digits_are_a_number(text: str) -> None:
    assert whole(text) is None


@pytest.mark.parametrize(
    ("not_before", "value", "seconds"),
    [
        (None, "500ms", 0.5),
        (None, "30", 30),
        (None, None, 0),
        ("1010", "1d", 10),
        ("990", None, 0),
        ("1000.5", None, 0.5),
    ],
)
def test_not_before_takes_precedence_over_the_delay(not_before: str | None, value: str | None, seconds: float) -> None:
    assert delay(not_before, value, now_seconds=1000.0) == pytest.approx(seconds)


def test_a_timeout_of_a_fraction_of_a_second_is_kept() -> None:
    assert timeout_ms("250ms", "Upstash-Timeout") == 250
    assert timeout_ms(None, "Upstash-Timeout") is None
