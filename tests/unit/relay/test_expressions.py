"""Retry expressions: parsed as documented, never evaluated as Python, and harmless when invalid."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.relay.outcome.backoff import default_backoff_seconds, own_delay_seconds, retry_delay_seconds
from services.relay.outcome.expression import ExpressionError, evaluate_ms
from tests.unit.relay.quick import parsed, quick

NOW = datetime(2026, 1, 1, tzinfo=UTC)

# A tree: a number, "retried", (sign, tree), (tree, operator, tree) or (function, trees).
Tree = Any
LEAVES = st.one_of(st.integers(0, 1000), st.just("retried"))
UNARY = ["sqrt", "abs", "floor", "ceil", "round"]
BINARY = ["pow", "min", "max"]


def extended(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    return st.one_of(
        st.tuples(st.just("-"), children),
        st.tuples(children, st.sampled_from("+-*/"), children),
        st.tuples(st.sampled_from(UNARY), st.tuples(children)),
        st.tuples(st.sampled_from(BINARY), st.tuples(children, children)),
    )


TREES = st.recursive(LEAVES, extended, max_leaves=8)
FUNCTIONS: dict[str, Callable[..., float]] = {
    "sqrt": math.sqrt, "abs": abs, "floor": math.floor, "ceil": math.ceil, "round": round, "pow": math.pow,
    "min": min, "max": max,
}  # fmt: skip


def written(tree: Tree) -> str:
    match tree:
        case int() | "retried":
            return str(tree)
        case ("-", part):
            return f"-({written(part)})"
        case (str(name), tuple(parts)):
            return f"{name}({', '.join(map(written, parts))})"
        case (left, operator, right):
            return f"({written(left)}) {operator} ({written(right)})"
    raise AssertionError(tree)


def value(tree: Tree, retried: int) -> float:
    """The reference implementation, which evaluates the tree and not the text."""
    match tree:
        case int():
            return float(tree)
        case "retried":
            return float(retried)
        case ("-", part):
            return -value(part, retried)
        case (str(name), tuple(parts)):
            return float(FUNCTIONS[name](*(value(part, retried) for part in parts)))
        case (left, operator, right):
            a, b = value(left, retried), value(right, retried)
            return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[operator]()
    raise AssertionError(tree)


@quick
@given(TREES, st.integers(0, 10))
def test_an_expression_has_the_value_of_its_tree(tree: Tree, retried: int) -> None:
    text = written(tree)
    assume(len(text) <= 500)
    try:
        expected = value(tree, retried)
        assume(math.isfinite(expected))
    except (ArithmeticError, ValueError):
        with pytest.raises(ExpressionError):
            evaluate_ms(text, retried)
    else:
        assert evaluate_ms(text, retried) == pytest.approx(max(0.0, expected))


@quick
@given(st.lists(st.sampled_from(["1", "20", "3"]), min_size=2, max_size=6), st.data())
def test_multiplication_takes_precedence_over_addition_and_both_are_left_associative(
    numbers: list[str], data: st.DataObject
) -> None:
    text = numbers[0]
    for number in numbers[1:]:
        text += data.draw(st.sampled_from("+-*/")) + number
    assert evaluate_ms(text, 0) == pytest.approx(max(0.0, eval(text)))


@quick
@given(st.text(max_size=60), st.integers(0, 20))
def test_any_text_is_a_delay_or_an_error(text: str, retried: int) -> None:
    milliseconds = parsed(lambda: evaluate_ms(text, retried), ExpressionError)
    assert milliseconds is None or 0 <= milliseconds < math.inf


@quick
@given(st.text(alphabet="()+-*/, 12retidpowsqrtmax", max_size=60))
def test_text_of_the_same_alphabet_is_a_delay_or_an_error(text: str) -> None:
    milliseconds = parsed(lambda: evaluate_ms(text, 1), ExpressionError)
    assert milliseconds is None or 0 <= milliseconds < math.inf


def test_an_expression_without_a_value_at_a_later_retry_is_replaced_by_the_default() -> None:
    assert own_delay_seconds(2, "1000 / (3 - retried)") == 1
    assert own_delay_seconds(3, "1000 / (3 - retried)") == default_backoff_seconds(4)


@pytest.mark.parametrize(
    "value", ["²", "9" * 5000, "٣", "1 Jan 99999 00:00:00 GMT", "\udc80", "1..2", "-1", "NaN", "inf"]
)
def test_an_invalid_request_of_a_destination_is_replaced_by_the_messages_own_delay(value: str) -> None:
    assert retry_delay_seconds(0, "1000", {"retry-after": value}, NOW, limited=True) == 1


@quick
@given(st.text(max_size=40))
def test_no_request_of_a_destination_is_an_error_or_longer_than_a_day(value: str) -> None:
    headers = {"retry-after": value, "x-ratelimit-reset": value}
    assert 0 <= retry_delay_seconds(0, "1000", headers, NOW, limited=True) <= 86_400
