"""Debezium's change events into our own terms. The only module that knows Debezium's format.

The envelope is JSON without schema: `{"op": "c" | "r", "after": {column: value}, …}`; a snapshot's `r` is the same row
told again. jsonb columns are text holding JSON; timestamptz columns are ISO 8601 text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

# Beside the columns of a row: whether a snapshot read it. No column has such a name.
SNAPSHOT = "(snapshot)"


class UndecodableChangeError(Exception):
    """The event is not a change that we know; the text says why. To be put aside, never retried."""


@dataclass(frozen=True)
class SubmissionChange:
    """A submission was stored. `snapshot`: the row was read from the table, as after a lost slot, and may be of any age.
    `nudged_at`: the reconciler had the row told again, because no relay holds its call.
    """

    id: UUID
    tenant: str
    target: str
    traceparent: str | None
    snapshot: bool = False
    nudged_at: str | None = None

    @property
    def told_again(self) -> bool:
        """Whether it may have been told before."""
        return self.snapshot or self.nudged_at is not None


@dataclass(frozen=True)
class ResultChange:
    """A submission ended. `output` and `metadata` are parsed JSON; `body_size` is in bytes. `snapshot`: the row was read
    from the table, as after a lost slot, and may be of any age.
    """

    submission_id: UUID
    event_id: UUID
    tenant: str
    target: str
    channel: str | None
    webhook: str | None
    metadata: Any
    traceparent: str | None
    outcome: str
    reason: str | None
    status_code: int | None
    content_type: str | None
    body_size: int | None
    body_sha256: str | None
    output: Any
    submitted_at: datetime
    completed_at: datetime
    snapshot: bool = False


def decode_submission(value: bytes | None) -> SubmissionChange | None:
    """A row of `tidings.submissions`; None when the event is no insert. Raises `UndecodableChangeError`."""
    row = _row(value)
    if row is None:
        return None
    try:
        return SubmissionChange(
            UUID(row["id"]),
            row["tenant"],
            row["target"],
            row.get("traceparent"),
            snapshot=row[SNAPSHOT],
            nudged_at=row.get("nudged_at"),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UndecodableChangeError(f"not a submission: {type(error).__name__}: {error}") from None


def decode_result(value: bytes | None) -> ResultChange | None:
    """A row of `tidings.results`; None when the event is no insert. Raises `UndecodableChangeError`."""
    row = _row(value)
    if row is None:
        return None
    try:
        if row["outcome"] not in {"succeeded", "failed", "cancelled", "expired"}:
            raise UndecodableChangeError(f"unknown outcome {row['outcome']!r}")
        return ResultChange(
            submission_id=UUID(row["submission_id"]),
            event_id=UUID(row["event_id"]),
            tenant=row["tenant"],
            target=row["target"],
            channel=row.get("channel"),
            webhook=row.get("webhook"),
            metadata=_json(row.get("metadata")),
            traceparent=row.get("traceparent"),
            outcome=row["outcome"],
            reason=row.get("reason"),
            status_code=row.get("status_code"),
            content_type=row.get("content_type"),
            body_size=row.get("body_size"),
            body_sha256=row.get("body_sha256"),
            output=_json(row.get("output")),
            submitted_at=datetime.fromisoformat(row["submitted_at"]),
            completed_at=datetime.fromisoformat(row["created_at"]),
            snapshot=row[SNAPSHOT],
        )
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UndecodableChangeError(f"not a result: {type(error).__name__}: {error}") from None


def _row(value: bytes | None) -> Mapping[str, Any] | None:
    """The row of an insert, and under `SNAPSHOT` whether it was read by a snapshot."""
    if value is None:
        return None
    try:
        envelope = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise UndecodableChangeError(f"not JSON: {error}") from None
    if not isinstance(envelope, dict):
        raise UndecodableChangeError("not an envelope")
    if envelope.get("op") not in {"c", "r"}:
        return None
    after = envelope.get("after")
    if not isinstance(after, dict):
        raise UndecodableChangeError("an envelope without a row")
    return after | {SNAPSHOT: envelope["op"] == "r"}


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)
