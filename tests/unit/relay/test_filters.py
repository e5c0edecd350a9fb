"""Filters and cursors of lists."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.relay.protocol.cursor import Cursor, decode_cursor, encode_cursor
from services.relay.protocol.filters import Filters, Route, read_filters
from services.relay.protocol.invalid import InvalidRequestError
from tests.unit.relay.quick import parsed, quick

WORDS = st.text(
    st.characters(codec="utf-8", exclude_characters=",\0", exclude_categories=["Z", "C"]), min_size=1, max_size=8
)
SEVERAL = st.lists(WORDS, min_size=1, max_size=4, unique=True)
FIELDS = {"messageIds": "message_ids", "topicName": "topic", "queueName": "queue", "scheduleId": "schedule",
          "label": "label", "host": "host", "callerIp": "caller_ip"}  # fmt: skip
CHOSEN = st.dictionaries(st.sampled_from(sorted(FIELDS)), SEVERAL, max_size=4)


@quick
@given(CHOSEN)
def test_repeated_comma_separated_and_json_values_are_the_same(chosen: dict[str, list[str]]) -> None:
    repeated = urlencode(chosen, doseq=True)
    joined = "&".join(f"{name}={','.join(map(quote, values))}" for name, values in chosen.items())
    fields: dict[str, Any] = {FIELDS[name]: tuple(values) for name, values in chosen.items()}
    expected = Filters(**fields)
    assert read_filters(Route.MESSAGES_BULK, repeated) == expected
    assert read_filters(Route.MESSAGES_BULK, joined) == expected
    assert read_filters(Route.MESSAGES_BULK, "", orjson.dumps(chosen)) == expected
    assert expected.unfiltered == (not chosen)


@quick
@given(st.sampled_from(list(Route)), st.text(max_size=60), st.none() | st.binary(max_size=30))
def test_any_query_and_body_are_filters_or_refused(route: Route, query: str, body: bytes | None) -> None:
    filters = parsed(lambda: read_filters(route, query, body or b""))
    assert filters is None or filters.count is None or 1 <= filters.count <= route.count_max


JSON = st.recursive(st.none() | st.booleans() | st.integers(-5, 10**18) | st.floats(allow_nan=False) | WORDS,
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2), max_leaves=4)  # fmt: skip


@quick
@given(st.dictionaries(st.sampled_from([*FIELDS, "count", "fromDate", "all", "cursor", "responseStatus"]), JSON))
def test_any_json_object_is_filters_or_refused(content: dict[str, object]) -> None:
    filters = parsed(lambda: read_filters(Route.LETTERS_BULK, "", orjson.dumps(content)))
    assert filters is None or filters.count is None or 1 <= filters.count <= 500


@quick
@given(st.integers(0, 10**17), st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60))
def test_a_cursor_makes_the_round_trip(time_us: int, item_id: str) -> None:
    text = encode_cursor(time_us, item_id)
    assert decode_cursor(text) == Cursor(time_us, item_id)
    assert read_filters(Route.EVENTS, f"cursor={text}").cursor == Cursor(time_us, item_id)
    # As the vendor's JavaScript client reads it.
    assert int(text.split("-")[0]) == time_us


@quick
@given(st.text(max_size=40))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    cursor = parsed(lambda: decode_cursor(text))
    assert cursor is None or cursor.id


@pytest.mark.parametrize("text", ["1-", "-", "1-a=", "x-YQ", "1-_-_-", "1-AA"])
def test_an_invalid_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="cursor"):
        decode_cursor(text)


@pytest.mark.parametrize(
    ("state", "states"),
    [
        ("DELIVERED", ("DELIVERED",)),
        ("CANCELLED", ("CANCELED",)),
        ("canceled,CANCELLED", ("CANCELED",)),
        ("in_progress", ("ACTIVE", "RETRY", "ERROR")),
        ("cancel_requested", ("CANCEL_REQUESTED",)),
    ],
)
def test_states(state: str, states: tuple[str, ...]) -> None:
    assert read_filters(Route.LOGS, f"state={state}").states == states


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("callerIP=1.2.3.4", Filters(caller_ip=("1.2.3.4",), count=100)),
        ("messageId=a&messageIds=b,c", Filters(message_ids=("a", "b", "c"), count=100)),
        ("url=https://a.example/?x=1,2", Filters(url=("https://a.example/?x=1,2",), count=100)),
        ("urlGroup=g&topicName=g", Filters(topic=("g",), count=100)),
        (
            "fromDate=1&toDate=2&responseStatus=404,500",
            Filters(from_ms=1, to_ms=2, response_status=(404, 500), count=100),
        ),
        ("count=5&cursor=&label=", Filters(count=5)),
        ("order=earliestFirst&trimBody=10", Filters(earliest_first=True, trim_body=10, count=100)),
        ("qstash_token=t", Filters(count=100)),
    ],
)
def test_the_vendors_names(query: str, expected: Filters) -> None:
    assert read_filters(Route.LETTERS, query) == expected


@pytest.mark.parametrize(
    ("route", "query", "count"),
    [
        (Route.EVENTS, "", 1000),
        (Route.EVENTS, "count=5000", 1000),
        (Route.LOGS, "count=1000", 100),
        (Route.MESSAGES_BULK, "", None),
        (Route.LETTERS_BULK, "count=900", 500),
    ],
)
def test_counts(route: Route, query: str, count: int | None) -> None:
    assert read_filters(route, query).count == count


@pytest.mark.parametrize(
    ("route", "query", "named"),
    [
        (Route.LETTERS, "colour=red", "colour"),
        (Route.MESSAGES_BULK, "state=ACTIVE", "state"),
        (Route.EVENTS, "dlqIds=1", "dlqIds"),
        (Route.LETTERS, "all=true", "all"),
        (Route.EVENTS, "state=SLEEPING", "SLEEPING"),
        (Route.EVENTS, "count=0", "count"),
        (Route.EVENTS, "count=many", "count"),
        (Route.EVENTS, "fromDate=yesterday", "fromDate"),
        (Route.EVENTS, "fromDate=1&fromDate=2", "fromDate"),
        (Route.EVENTS, "order=upwards", "order"),
        (Route.EVENTS, "label=%00", "label"),
    ],
)
def test_an_invalid_filter_is_refused_with_its_name(route: Route, query: str, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        read_filters(route, query)


@pytest.mark.parametrize("body", [b"[1]", b"{", b'"x"', b'{"messageIds":{}}', b'{"messageIds":[1.5]}'])
def test_an_invalid_body_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        read_filters(Route.MESSAGES_BULK, "", body)


def test_consent_to_no_filter() -> None:
    asked = read_filters(Route.MESSAGES_BULK, "all=true&count=10")
    assert asked.all
    assert asked.unfiltered
    assert not read_filters(Route.MESSAGES_BULK, "").all
