"""A submission on its way to the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tidings.contract.ids import SubmissionId


@dataclass(frozen=True)
class Row:
    """A submission to be stored; `metadata` is JSON text."""

    id: SubmissionId
    tenant: str
    target: str
    body: bytes
    content_type: str
    metadata: str | None
    channel: str | None
    webhook: str | None
    idempotency_key: str | None
    fingerprint: bytes  # of the request; empty without an idempotency key, because nothing compares it then
    traceparent: str | None
    created_at: datetime
    expires_at: datetime | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.body)


@dataclass(frozen=True)
class Stored:
    """The id of a stored submission: its own, or, if `repeated`, that of an earlier submission with the same key."""

    id: SubmissionId
    repeated: bool
    same_input: bool
