"""The record that puts a change aside in `tidings.dead-letters`, with its reason and where it came from."""

from __future__ import annotations

from typing import Any

from tidings.contract.topics import DEAD_LETTERS
from tidings.kafka.transactions import Outgoing

REASON_CHARACTERS_MAX = 1000


def dead_letter(record: Any, reason: str, *, bare: bool = False) -> Outgoing:
    """For a consumer's `record`. `bare`: without its value, for a broker that will not take it."""
    source = f"{record.topic}/{record.partition}/{record.offset}"
    headers = (("reason", reason[:REASON_CHARACTERS_MAX].encode(errors="replace")), ("source", source.encode()))
    return Outgoing(DEAD_LETTERS, record.key or b"", b"" if bare else record.value, headers)
