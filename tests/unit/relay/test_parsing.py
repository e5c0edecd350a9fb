"""Reading what senders write: durations, expressions, headers, addresses, reset times."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.relay.guard import permitted
from services.relay.wire.backoff import default_backoff_seconds, retry_delay_seconds
from services.relay.wire.duration import parse_duration
from services.relay.wire.expression import ExpressionError, evaluate_ms
from services.relay.wire.invalid import InvalidRequestError
from services.relay.wire.publishing import destination, draft

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("1d10h30m", 124_200),
        ("6m5s", 365),
        ("20ms", 0.02),
        ("1.5s", 1.5),
        ("", None),
        ("5", None),
        ("s", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


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
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate_ms(text, 0)


@given(st.text(max_size=60), st.integers(0, 20))
def test_any_text_is_a_delay_or_an_error(text: str, retried: int) -> None:
    try:
        assert evaluate_ms(text, retried) >= 0
    except ExpressionError:
        return


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
def test_what_the_destination_asks_for_comes_first(headers: dict[str, str], limited: bool, seconds: float) -> None:
    assert retry_delay_seconds(0, "1000", headers, NOW, limited=limited) == seconds


@pytest.mark.parametrize(
    ("raw", "url"),
    [
        ("https://a.example/x//y%2Fz?q=1", "https://a.example/x//y%2Fz?q=1"),
        ("v2/publish/https://a.example/x", "https://a.example/x"),
        ("https:/a.example/x", "https://a.example/x"),
        ("a.example/x", "https://a.example/x"),
        ("http://127.0.0.1:80/", "http://127.0.0.1:80/"),
    ],
)
def test_destinations(raw: str, url: str) -> None:
    assert destination(raw) == url


@pytest.mark.parametrize(
    "raw", ["ftp://a.example", "https://user:pw@a.example", "https://a b", "https://", "https://a:x/"]
)
def test_what_is_no_destination_is_refused(raw: str) -> None:
    with pytest.raises(InvalidRequestError):
        destination(raw)


def test_headers_are_read_in_any_case_and_forwarded_by_canonical_names() -> None:
    headers = {
        "upstash-FORWARD-test-header": "v",
        "UPSTASH-RETRIES": "2",
        "Upstash-Callback": "my.app/c",
        "upstash-delay": "90s",
    }
    read = draft("https://a.example", headers, b"x", protocol=2, caller_ip="")
    assert read.headers == {"Test-Header": "v"}
    assert (read.retries_max, read.delay_seconds) == (2, 90)
    assert read.callback is not None
    assert read.callback.url == "https://my.app/c"


@pytest.mark.parametrize(
    "headers",
    [
        {"Upstash-Retries": "-1"},
        {"Upstash-Delay": "soon"},
        {"Upstash-Not-Before": "x"},
        {"Upstash-Method": "BREW"},
        {"Upstash-Retry-Delay": "1 +"},
        {"Upstash-Deduplication-Id": "a:b"},
        {"Upstash-Forward-X": "a\r\nb"},
        {"Tidings-Final-Status": "4xx"},
        {"Tidings-On-Unknown": "maybe"},
    ],
)
def test_faulty_headers_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError):
        draft("https://a.example", headers, b"", protocol=2, caller_ip="")


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
