"""Any bytes are a change, no change, or an `UndecodableChangeError`, for which a consumer writes a dead letter and
continues.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifier.transform import DeadLetter, transform
from tests.unit.relay.quick import parsed, quick
from tests.unit.test_events import ROW
from tidings.contract.change import UndecodableChangeError, decode_result, decode_submission

TEXT = st.text(st.characters(), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
ANY = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
# Texts with a known meaning reach more of the code than random ones.
LIKELY = st.sampled_from(
    ["", "c", "r", "{", "[" * 5000, "NaN", '"\\ud800"', '"\\udfff\\ud800"', "1e999", "2026-01-01", "\ud800", "\0",
     "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"]
)  # fmt: skip
ROWS = st.dictionaries(st.sampled_from(sorted(ROW)), ANY | LIKELY, max_size=3)


def bytes_of(content: object) -> bytes:
    return json.dumps(content).encode()


@quick
@given(st.binary(max_size=40) | ANY.map(bytes_of))
def test_any_bytes_are_decoded_or_refused(value: bytes) -> None:
    for decode in (decode_submission, decode_result):
        parsed(lambda decode=decode: decode(value), UndecodableChangeError)  # type: ignore[misc]


@quick
@given(ANY, ANY)
def test_any_envelope_is_decoded_or_refused(op: object, after: object) -> None:
    for decode in (decode_submission, decode_result):
        value = bytes_of({"op": op, "after": after})
        parsed(lambda decode=decode, value=value: decode(value), UndecodableChangeError)  # type: ignore[misc]


@quick
@given(ROWS)
def test_any_row_makes_an_event_or_is_a_dead_letter(changed: dict[str, object]) -> None:
    value = bytes_of({"op": "c", "after": ROW | changed})
    assert transform(value, "http://x") is not None
    parsed(lambda: decode_submission(bytes_of({"op": "c", "after": {"id": ROW["event_id"]} | changed})),
           UndecodableChangeError)  # fmt: skip


@pytest.mark.parametrize("op", ["[]", "{}", "[[1]]"])
def test_an_op_that_is_not_text_is_undecodable(op: str) -> None:
    for decode in (decode_submission, decode_result):
        with pytest.raises(UndecodableChangeError, match="op"):
            decode(b'{"op": %b, "after": {}}' % op.encode())


@pytest.mark.parametrize(
    "changed",
    [
        {"tenant": 5}, {"target": None}, {"tenant": "\ud800"}, {"channel": {}}, {"body_size": "2"}, {"body_size": True},
        {"output": '"\\ud800"'}, {"output": "NaN"}, {"submitted_at": "2026-01-01T00:00:00"},
        {"created_at": "0001-01-01T00:00:00+14:00"}, {"outcome": []},
    ],
)  # fmt: skip
def test_a_column_of_another_type_is_a_dead_letter_with_a_reason(changed: dict[str, object]) -> None:
    letter = transform(bytes_of({"op": "c", "after": ROW | changed}), "http://x")
    assert isinstance(letter, DeadLetter)
    assert letter.reason.encode()
