"""JSON whose values need far more memory than its bytes is refused before it is parsed."""

from __future__ import annotations

import orjson
import pytest

from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.json_values import VALUES_MAX, check_values


@pytest.mark.parametrize("value", [b"[]", b"{}", b"1", b'"\\\\"', b'"a\\"b"'])
def test_very_many_values_are_refused(value: bytes) -> None:
    check_values(b"[" + b",".join([value] * (VALUES_MAX // 2 - 1)) + b"]")
    with pytest.raises(InvalidRequestError, match="values"):
        check_values(b"[" + b",".join([value] * (2 * VALUES_MAX)) + b"]")


def test_the_content_of_strings_does_not_count() -> None:
    body = orjson.dumps({"list": [1] * VALUES_MAX, "text": '"\\' * 1000}).decode()
    check_values(orjson.dumps([{"destination": "https://a.example", "body": body}] * 3))


def test_invalid_json_is_left_to_the_parser() -> None:
    check_values(b'["' + b"x" * 2_000_000)
