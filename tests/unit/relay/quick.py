"""The settings of property tests, and their rule for text that may be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import settings

from services.relay.protocol.invalid import InvalidRequestError

Parsed = TypeVar("Parsed")

# Few examples, without a time limit for each, as the machine may be busy.
quick = settings(max_examples=100, deadline=None)


def parsed(parse: Callable[[], Parsed], refusal: type[Exception] = InvalidRequestError) -> Parsed | None:
    """Return the result of `parse`, or None when it refuses with a reason. Every other error fails the test."""
    try:
        return parse()
    except refusal as error:
        if not str(error):
            raise
        return None
