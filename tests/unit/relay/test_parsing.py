"""Known values: retry expressions, backoff and reset times, and the addresses that may be called."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime

import pytest

from services.relay.egress.address_policy import permitted
from services.relay.outcome.backoff import default_backoff_seconds, retry_delay_seconds
from services.relay.outcome.expression import ExpressionError, evaluate_ms

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "retried", "milliseconds"),
    [
        ("1000", 0, 1000),
        ("1000 * (1 + retried)", 2, 3000),
        ("pow(2, retried) * 100", 3, 800),
        ("max(1, min(5, 3)) - -2", 0, 5),
        ("2 + 3 * 4", 0, 14),
        ("0 - 5", 0, 0),
    ],
)
def test_retry_expressions(text: str, retried: int, milliseconds: float) -> None:
    assert evaluate_ms(text, retried) == milliseconds


@pytest.mark.parametrize(
    "text",
    ["", "1 +", "1/0", "exp(10000)", "__import__('os')", "retried.real", "pow(1)", "(" * 99 + "1" + ")" * 99, "1 2"],
)
def test_an_invalid_expression_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate_ms(text, 0)


def test_the_default_backoff_is_the_documented_timetable() -> None:
    seconds = [round(default_backoff_seconds(retry)) for retry in range(1, 6)]
    assert seconds == [12, 148, 1808, 22026, 86400]


@pytest.mark.parametrize(
    ("headers", "limited", "seconds"),
    [
        ({"retry-after": "7"}, False, 7),
        ({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT"}, False, 60),
        ({"x-ratelimit-reset-requests": "6m5s"}, True, 365),
        ({"x-ratelimit-reset-requests": "6m5s"}, False, 1),
        ({"retry-after": "0"}, True, 0),
        ({"retry-after": "100000"}, True, 1),
        ({"retry-after": "nonsense"}, True, 1),
    ],
)
def test_the_destinations_request_takes_precedence(headers: dict[str, str], limited: bool, seconds: float) -> None:
    assert retry_delay_seconds(0, "1000", headers, NOW, limited=limited) == seconds


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "::1", "fd00:ec2::254",
     "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"],
)  # fmt: skip
def test_addresses_that_are_not_global_are_refused(address: str) -> None:
    assert not permitted(ipaddress.ip_address(address), ())


def test_a_global_or_permitted_address_may_be_called() -> None:
    assert permitted(ipaddress.ip_address("93.184.216.34"), ())
    assert permitted(ipaddress.ip_address("::ffff:10.0.0.1"), (ipaddress.ip_network("10.0.0.0/8"),))
