"""How property tests run here, and what they say of text that may be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import settings

from services.relay.protocol.invalid import InvalidRequestError

Parsed = TypeVar("Parsed")

# Few examples, and no limit on one of them, as the machine may be busy.
quick = settings(max_examples=100, deadline=None)


def parsed(parse: Callable[[], Parsed], refusal: type[Exception] = InvalidRequestError) -> Parsed | None:
    """What `parse` answers, or None when it refuses with a reason; every other error is passed on, and fails the test."""
    try:
        return parse()
    except refusal as error:
        if not str(error):
            raise
        return None
