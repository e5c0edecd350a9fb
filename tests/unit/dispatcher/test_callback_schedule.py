"""Callbacks are retried for days: the total of their delays, as the relay computes it."""

from __future__ import annotations

import re

from services.dispatcher.message import CALLBACK_RETRIES, CALLBACK_RETRY_DELAY, Callbacks
from services.relay.outcome.backoff import own_delay_seconds
from services.relay.protocol.values import RETRIES_MAX
from tests.process import ROOT

DAY_SECONDS = 86_400
DELAYS = [own_delay_seconds(retried, CALLBACK_RETRY_DELAY) for retried in range(CALLBACK_RETRIES)]


def test_a_callback_is_retried_for_three_days_before_it_is_a_dead_letter() -> None:
    assert sum(DELAYS) >= 3 * DAY_SECONDS


def test_a_callback_after_an_outage_of_seconds_waits_seconds_and_never_more_than_five_minutes() -> None:
    assert DELAYS[:6] == [1, 2, 4, 8, 16, 32]
    assert max(DELAYS) <= 300
    assert sorted(DELAYS) == DELAYS


def test_the_relay_accepts_the_number_of_retries_and_both_callbacks_have_it() -> None:
    assert CALLBACK_RETRIES <= RETRIES_MAX
    headers = Callbacks("http://api", "token").headers("id")
    asked = {headers[f"Upstash-{kind}-Retries"] for kind in ("Callback", "Failure-Callback")}
    assert asked == {str(CALLBACK_RETRIES)}


def test_the_documentation_has_the_schedule() -> None:
    text = re.sub(r"\s+", " ", (ROOT / "docs" / "ARCHITECTURE.md").read_text())
    hours = sum(DELAYS) / 3600
    assert f"retried {CALLBACK_RETRIES} times, after 1, 2, 4 … {max(DELAYS):.0f} s, for {hours:.0f} hours" in text
