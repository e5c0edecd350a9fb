"""The limits of a JSON body: its values are counted before they are parsed."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.api.models import JSON_VALUES_MAX, NewSubmission, fingerprint, parse_json, too_many_values
from services.api.problem import ProblemError

FIVE_MIB = 5 * 1024 * 1024


def refused(body: bytes) -> int | None:
    try:
        parse_json(body, "application/json")
    except ProblemError as error:
        return error.status
    return None


@pytest.mark.parametrize("value", [b"[]", b"{}", b"1", b'""', b'"a\\"b"', b'{"a":1}', b'"\\\\"', b"[[]]"])
def test_five_mib_of_small_values_are_refused_at_little_cost(value: bytes) -> None:
    body = b"[" + b",".join([value] * (FIVE_MIB // (len(value) + 1))) + b"]"
    before = time.thread_time()
    assert refused(body) == 422
    # Processor time, which does not depend on other processes. Parsing takes seconds.
    assert time.thread_time() - before < 1


@pytest.mark.parametrize(
    "text",
    [",[{" * 1_500_000, '"' * 2_000_000, "\\" * 2_000_000, '\\",' * 1_000_000, ",\n" * 2_000_000],
    ids=["structure", "quotes", "backslashes", "escapes", "lines"],
)
def test_a_text_is_one_value_whatever_it_contains(text: str) -> None:
    assert refused(orjson.dumps({"target": "t", "input": {"prompt": text}})) is None


def test_the_maximum_of_values_is_accepted() -> None:
    assert refused(b"[" + b",".join([b"1"] * (JSON_VALUES_MAX - 1)) + b"]") is None
    assert refused(b"[" + b",".join([b"1"] * (JSON_VALUES_MAX + 1)) + b"]") == 422


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(alphabet='a,[{"\\:]}', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(alphabet='b,"\\[', max_size=4), inner, max_size=5)
    ),
    max_leaves=30,
)


def count(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(count(child) for child in children)


@given(JSON, st.integers(1, 40))
@settings(max_examples=400, deadline=None)
def test_no_text_is_counted_as_values_and_every_value_is_counted(value: Any, values_max: int) -> None:
    body = orjson.dumps(value)
    openers = body.count(b"[") + body.count(b"{")
    values, empty = count(value), body.count(b"[]") + body.count(b"{}")
    if too_many_values(body, openers, values_max):
        # An empty array counts as if it had one value. A text may contain `[]` too, so this bound is looser, and not
        # wrong.
        assert values + empty > values_max
    else:
        assert values <= values_max


@pytest.mark.parametrize("text", ["\\u0000", "what does \\u0000 mean", "\\\\u0000"])
def test_an_escaped_backslash_before_u0000_is_not_the_character(text: str) -> None:
    assert parse_json(orjson.dumps({"input": text}), "application/json") == {"input": text}


@pytest.mark.parametrize("body", [b'"\\u0000"', b'"\\\\\\u0000"', b'{"\\u0000": 1}'])
def test_a_nul_character_is_refused(body: bytes) -> None:
    assert refused(body) == 400


def test_an_input_is_not_serialized_again() -> None:
    content = {"target": "t", "input": {"a": [1]}}
    assert NewSubmission.model_validate(content).input is content["input"]


def test_a_fingerprint_is_the_same_as_in_earlier_releases() -> None:
    asked = NewSubmission.model_validate({"input": {"b": 1, "a": [None]}, "target": "t"})
    assert fingerprint(asked).hex() == "72d2e0d04acabfac74e74cd2503ea5df5458656aec1b2918016aa8df7a917210"
