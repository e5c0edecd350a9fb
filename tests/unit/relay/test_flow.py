"""Flow control in the formats of senders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.relay.options import FlowControl
from services.relay.protocol.flow import Pin, Unpin, parse_flow_control, parse_pin, parse_unpin
from services.relay.protocol.invalid import InvalidRequestError
from tests.unit.relay.quick import parsed, quick

LIMITS = st.none() | st.integers(1, 10**6)
UNITS = {"s": 1, "m": 60, "h": 3600}


@quick
@given(
    LIMITS,
    LIMITS,
    st.none() | st.tuples(st.integers(1, 100), st.sampled_from(sorted(UNITS))),
    st.randoms(),
    st.booleans(),
)
def test_valid_limits_are_read(
    parallelism: int | None, rate: int | None, period: tuple[int, str] | None, order: object, spaced: bool
) -> None:
    written = {
        "parallelism": parallelism,
        "rate": rate,
        "period": None if period is None else f"{period[0]}{period[1]}",
    }
    items = [f"{name}={value}" for name, value in written.items() if value is not None]
    order.shuffle(items)  # type: ignore[attr-defined]
    text = (", " if spaced else ",").join(items)
    if parallelism is None and rate is None:
        with pytest.raises(InvalidRequestError):
            parse_flow_control("key", text)
        return
    seconds = 1 if period is None else period[0] * UNITS[period[1]]
    assert parse_flow_control("key", text) == FlowControl("key", parallelism, rate, seconds, cooling=True)


@quick
@given(st.text(max_size=30), st.text(alphabet="parleismtod=,1 0hw²", max_size=40))
def test_any_text_is_a_limit_or_refused(key: str, value: str) -> None:
    flow = parsed(lambda: parse_flow_control(key, value))
    assert flow is None or flow.parallelism or flow.rate


@pytest.mark.parametrize("value", ["", "period=1m", "burst=3", "parallelism", "5"])
def test_an_error_without_a_limit_has_the_vendors_text(value: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_flow_control("key", value)
    if value != "parallelism":
        assert str(caught.value) == (
            "Upstash-Flow-Control-Value should be either rate=X or parallelism=Y, or both as comma-separated values"
        )


@pytest.mark.parametrize(
    "value", ["rate=0", "rate=1,period=8d", "rate=1,period=500ms", "rate=1,period=0", "rate=-1", "rate=1,rate=2"]
)
def test_limits_out_of_range_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_flow_control("key", value)


@pytest.mark.parametrize(("period", "seconds"), [("90", 90), ("7d", 604_800), ("1h30m3s", 5403)])
def test_periods(period: str, seconds: int) -> None:
    assert parse_flow_control("key", f"rate=1,period={period}").period_seconds == seconds


def test_pins() -> None:
    assert parse_pin("parallelism=3&rate=20&period=120") == Pin(3, 20, 120)
    assert parse_pin("rate=20&qstash_token=t") == Pin(None, 20, 1)
    assert parse_pin("parallelism=3") == Pin(3, None, None)
    assert parse_unpin("parallelism=true") == Unpin(parallelism=True, rate=False)
    assert parse_unpin("parallelism=false&rate=true") == Unpin(parallelism=False, rate=True)


@pytest.mark.parametrize("query", ["", "period=5", "rate=0", "burst=1", "parallelism=2&period=5"])
def test_faulty_pins_are_refused(query: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_pin(query)


@pytest.mark.parametrize("query", ["", "rate=false", "period=true"])
def test_faulty_unpins_are_refused(query: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_unpin(query)
