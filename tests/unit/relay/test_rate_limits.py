"""The time of the next call, in every format of providers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.relay.outcome.backoff import PAUSE_SECONDS_MAX, requested_delay_seconds, requested_pause_seconds
from tests.unit.relay.quick import quick

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EPOCH = int(NOW.timestamp())


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        # An explicit time takes precedence over the resets of budgets. OpenAI's resets are the times when they are full
        # again.
        ({"retry-after": "1", "x-ratelimit-remaining-requests": "5000", "x-ratelimit-reset-requests": "12h0m0s"}, 1),
        ({"retry-after": "1", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "12h0m0s"}, 1),
        ({"retry-after": "0", "x-ratelimit-reset": "30"}, 0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "odd", "retry-after": "Thu, 01 Jan 2026 00:01:00 GMT"}, 60),
        # OpenAI.
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "900ms",
          "x-ratelimit-remaining-requests": "5000", "x-ratelimit-reset-requests": "12h0m0s"}, 0.9),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "20ms"}, 1),
        ({"x-ratelimit-reset-project-tokens": "2m59.56s"}, 179.56),
        # GitHub and others with its format; Discord; milliseconds.
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(EPOCH + 40)}, 40),
        ({"x-rate-limit-remaining": "0", "x-rate-limit-reset": str((EPOCH + 40) * 1000)}, 40),
        ({"x-ratelimit-reset": str(EPOCH + 2), "x-ratelimit-reset-after": "1.5"}, 2),
        ({"x-ratelimit-remaining": "-3", "x-ratelimit-reset": "7"}, 7),
        # Anthropic.
        ({"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:30Z",
          "anthropic-ratelimit-tokens-remaining": "80", "anthropic-ratelimit-tokens-reset": "2026-01-01T09:00:00Z"}, 30),
        ({"anthropic-ratelimit-input-tokens-remaining": "0",
          "anthropic-ratelimit-input-tokens-reset": "2026-01-01T01:00:45+01:00"}, 45),
        # The IETF's drafts.
        ({"ratelimit-remaining": "0", "ratelimit-reset": "11"}, 11),
        ({"ratelimit": "limit=100, remaining=0, reset=12"}, 12),
        ({"ratelimit": '"per;t=99,r=0";r=0;t=30, "day";r=5;t=8000'}, 30),
        ({"ratelimit": '"a";r=0;t=30, "b";r=0;t=31'}, 31),
        # No budget is exhausted, the value is unreadable, or its time is too long for a rate limit.
        ({"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "5s"}, None),
        ({"ratelimit": '"a";r=1;t=30'}, None),
        ({"x-ratelimit-reset": "soon"}, None),
        ({"retry-after": "100000", "x-ratelimit-reset": "5"}, None),
        ({"x-ratelimit-reset-requests": "900h", "x-ratelimit-reset-tokens": "5s"}, 5),
        ({}, None),
    ],
)  # fmt: skip
def test_the_time_that_an_answer_names(headers: dict[str, str], seconds: float | None) -> None:
    asked = requested_delay_seconds(headers, NOW, limited=True)
    assert asked == (None if seconds is None else pytest.approx(seconds))


def test_only_a_rate_limit_makes_resets_count() -> None:
    assert requested_delay_seconds({"x-ratelimit-reset": "5"}, NOW, limited=False) is None
    assert requested_delay_seconds({"retry-after-ms": "5000"}, NOW, limited=False) == 5


def test_a_reset_pauses_a_whole_key_for_at_most_an_hour_and_an_explicit_time_for_as_long_as_it_says() -> None:
    assert requested_pause_seconds({"x-ratelimit-reset-requests": "12h0m0s"}, NOW) == PAUSE_SECONDS_MAX
    assert requested_pause_seconds({"x-ratelimit-reset-requests": "5s"}, NOW) == 5
    assert requested_pause_seconds({"retry-after": "7200", "x-ratelimit-reset-requests": "1s"}, NOW) == 7200
    assert requested_pause_seconds({}, NOW) is None


NAMES = st.sampled_from(
    ["retry-after", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-remaining", "ratelimit", "ratelimit-reset",
     "anthropic-ratelimit-tokens-reset"]
)  # fmt: skip
VALUES = st.text(max_size=40) | st.text('0123456789.;=,"rtsmh:-TZ+ ', max_size=40) | st.floats().map(str)


@quick
@given(st.dictionaries(NAMES, VALUES))
def test_no_header_delays_a_call_for_more_than_a_day(headers: dict[str, str]) -> None:
    asked = requested_delay_seconds(headers, NOW, limited=True)
    assert asked is None or 0 <= asked <= 86_400
