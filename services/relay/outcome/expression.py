"""`Upstash-Retry-Delay`: an arithmetic expression over `retried` that gives milliseconds. It is parsed here and never
run as Python.

Source: the vendor's documentation of custom retry delays: `+ - * / ( )`, pow sqrt abs exp floor ceil round min max.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

_TOKEN = re.compile(r"\s*(?:([0-9]+(?:\.[0-9]+)?)|([a-z]+)|([-+*/(),]))")
_FUNCTIONS: dict[str, tuple[int, Callable[..., float]]] = {
    "pow": (2, math.pow),
    "sqrt": (1, math.sqrt),
    "abs": (1, abs),
    "exp": (1, math.exp),
    "floor": (1, math.floor),
    "ceil": (1, math.ceil),
    "round": (1, round),
    "min": (2, min),
    "max": (2, max),
}
# The limit on an expression, which is the value of a header. The limit on the depth bounds the recursion below.
CHARACTERS_MAX = 500
DEPTH_MAX = 40


class ExpressionError(Exception):
    """The text is not an expression, or has no finite value. The text of the error says where."""


def evaluate_ms(text: str, retried: int) -> float:
    """The delay in milliseconds before retry `retried` + 1, at least 0. Raises `ExpressionError`."""
    if len(text) > CHARACTERS_MAX:
        raise ExpressionError(f"longer than {CHARACTERS_MAX} characters")
    parser = _Parser(_tokens(text), retried)
    try:
        value = parser.sum(0)
    except (ArithmeticError, ValueError) as error:
        raise ExpressionError(f"no value: {error}") from None
    if parser.position != len(parser.tokens):
        raise ExpressionError(f"unexpected {parser.tokens[parser.position]!r}")
    if not math.isfinite(value):
        raise ExpressionError("no finite value")
    return max(0.0, value)


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"unexpected {text[position:].strip()[0]!r}")
        tokens.append(match[0].strip())
        position = match.end()
    return tokens


class _Parser:
    """Recursive descent: sum → product → sign → number, name, call or bracket."""

    def __init__(self, tokens: list[str], retried: int) -> None:
        self.tokens = tokens
        self.position = 0
        self._retried = retried

    def sum(self, depth: int) -> float:
        if depth > DEPTH_MAX:
            raise ExpressionError("nested too deeply")
        value = self._product(depth)
        while (operator := self._accept("+", "-")) is not None:
            right = self._product(depth)
            value = value + right if operator == "+" else value - right
        return value

    def _product(self, depth: int) -> float:
        value = self._signed(depth)
        while (operator := self._accept("*", "/")) is not None:
            right = self._signed(depth)
            value = value * right if operator == "*" else value / right
        return value

    def _signed(self, depth: int) -> float:
        sign = 1.0
        while (operator := self._accept("+", "-")) is not None:
            sign = -sign if operator == "-" else sign
        return sign * self._atom(depth)

    def _atom(self, depth: int) -> float:
        word = self._next()
        if word == "(":
            value = self.sum(depth + 1)
            self._expect(")")
            return value
        if word == "retried":
            return float(self._retried)
        if word in _FUNCTIONS:
            count, function = _FUNCTIONS[word]
            self._expect("(")
            arguments = [self.sum(depth + 1)]
            while len(arguments) < count:
                self._expect(",")
                arguments.append(self.sum(depth + 1))
            self._expect(")")
            return float(function(*arguments))
        if not word[0].isdigit():
            raise ExpressionError(f"unexpected {word!r}")
        return float(word)

    def _accept(self, *wanted: str) -> str | None:
        if self.position < len(self.tokens) and self.tokens[self.position] in wanted:
            self.position += 1
            return self.tokens[self.position - 1]
        return None

    def _next(self) -> str:
        if self.position == len(self.tokens):
            raise ExpressionError("ends too early")
        self.position += 1
        return self.tokens[self.position - 1]

    def _expect(self, wanted: str) -> None:
        if (token := self._next()) != wanted:
            raise ExpressionError(f"expected {wanted!r}, not {token!r}")
