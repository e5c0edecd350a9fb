"""The form of rows for the database."""

from __future__ import annotations

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from services.relay.store.written import as_json


@given(st.text(st.sampled_from('\\u0\0x"')))
@example("\\u0000")
@example("\\\0\0\\\\u0000")
def test_only_nul_is_removed_from_a_text(text: str) -> None:
    assert orjson.loads(as_json([{"error": text}])) == [{"error": text.replace("\0", "")}]
