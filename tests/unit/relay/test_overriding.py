"""Messages that are published again with some options replaced."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.relay.message import Draft
from services.relay.options import CallbackOptions, FlowControl, Options, Redaction
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.overriding import overridden

ORIGINAL = Draft(
    url="https://example.com", method="PUT", headers={"X-A": "1"}, body=b"sent", retries_max=7, labels=("old",),
    options=Options(
        callback=CallbackOptions("https://example.com/back", retries_max=2), flow=FlowControl("k", 1, None)
    ),
)  # fmt: skip


def test_without_options_nothing_changes() -> None:
    assert overridden(ORIGINAL, {"Content-Type": "application/json", "User-Agent": "curl"}, 0.0) == ORIGINAL


def test_given_options_replace_those_of_the_message_and_the_rest_stays() -> None:
    options = {
        "upstash-method": "PATCH", "Upstash-Forward-X-B": "2", "Upstash-Not-Before": "160", "Tidings-On-Unknown": "fail",
        "Upstash-Flow-Control-Key": "other", "Upstash-Flow-Control-Value": "rate=3",
        "Upstash-Failure-Callback": "https://example.com/failed",
    }  # fmt: skip
    asked = overridden(ORIGINAL, options, 100.0)
    assert (asked.method, asked.headers, asked.delay_seconds) == ("PATCH", {"X-A": "1", "X-B": "2"}, 60.0)
    assert (asked.retries_max, asked.labels, asked.on_unknown) == (7, ("old",), "fail")
    assert asked.options.flow == FlowControl("other", None, 3)
    assert asked.options.callback == ORIGINAL.options.callback
    assert asked.options.failure_callback == CallbackOptions("https://example.com/failed")


@pytest.mark.parametrize(
    ("options", "public_only"),
    [({}, True), ({"Tidings-Addresses": "public"}, True), ({"Tidings-Addresses": "allowed"}, False)],
)
def test_a_message_for_public_addresses_stays_one_unless_the_option_is_given(
    options: dict[str, str], public_only: bool
) -> None:
    original = replace(ORIGINAL, options=Options(public_only=True))
    assert overridden(original, options, 0.0).options.public_only is public_only


def test_a_part_of_the_callback_may_be_given() -> None:
    asked = overridden(ORIGINAL, {"Upstash-Callback-Timeout": "5s"}, 0.0)
    assert asked.options.callback == CallbackOptions("https://example.com/back", retries_max=2, timeout_ms=5000)


def test_redacted_parts_stay_redacted() -> None:
    original = replace(ORIGINAL, options=Options(redact=Redaction(body=True, headers=frozenset({"x-a"}))))
    asked = overridden(original, {"Upstash-Redact-Fields": "header[X-B]"}, 0.0)
    assert asked.options.redact == Redaction(body=True, headers=frozenset({"x-a", "x-b"}))
    assert overridden(original, {"Upstash-Redact-Fields": "header"}, 0.0).options.redact.all_headers
    assert overridden(original, {"Upstash-Redact-Fields": ""}, 0.0).options.redact == original.options.redact


def test_a_faulty_option_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        overridden(ORIGINAL, {"Upstash-Retries": "many"}, 0.0)
