"""The record in `tidings.dead-letters` for a change that cannot be handled, with the reason and its origin."""

from __future__ import annotations

from typing import Any

from tidings.contract.topics import DEAD_LETTERS
from tidings.kafka.transactions import Outgoing

REASON_CHARACTERS_MAX = 1000


def dead_letter(record: Any, reason: str, *, bare: bool = False) -> Outgoing:
    """Build the dead letter of a consumer's `record`. `bare`: without its value, if the broker rejects the value."""
    source = f"{record.topic}/{record.partition}/{record.offset}"
    headers = (("reason", reason[:REASON_CHARACTERS_MAX].encode(errors="replace")), ("source", source.encode()))
    return Outgoing(DEAD_LETTERS, record.key or b"", b"" if bare else record.value, headers)
