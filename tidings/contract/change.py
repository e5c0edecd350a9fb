"""Decodes Debezium's change events. The only module that knows Debezium's format.

The envelope is JSON without schema: `{"op": "c" | "r", "after": {column: value}, …}`; a snapshot's `r` repeats a row.
jsonb columns are text that contains JSON; timestamptz columns are ISO 8601 text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

# A key beside the columns of a row: whether a snapshot read the row. No column has this name.
SNAPSHOT = "(snapshot)"
# The depth of a nested JSON column: Python reads and writes some 1000 levels, minus the depth of the stack.
DEPTH_MAX = 900


class UndecodableChangeError(Exception):
    """The event is not a known change; the text gives the reason. It becomes a dead letter and is never retried."""


@dataclass(frozen=True)
class SubmissionChange:
    """A submission was stored. `snapshot`: the row was read from the table, as after a lost slot, and may be of any
    age. `nudged_at`: the reconciler had the row emitted again, because no relay holds its call.
    """

    id: UUID
    tenant: str
    target: str
    traceparent: str | None
    snapshot: bool = False
    nudged_at: str | None = None

    @property
    def repeated(self) -> bool:
        """Whether the change may be a repeat."""
        return self.snapshot or self.nudged_at is not None


@dataclass(frozen=True)
class ResultChange:
    """A submission ended. `output` and `metadata` are parsed JSON; `body_size` is in bytes.
    `snapshot`: the row was read from the table, as after a lost slot, and may be of any age.
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


@dataclass(frozen=True)
class ContentRemoval:
    """The content of a submission was erased; `message_ids` are the relay's ids of all its attempts.
    `snapshot`: the row was read from the table, as after a lost slot, and may be of any age.
    """

    submission_id: UUID
    message_ids: tuple[str, ...]
    snapshot: bool = False


def decode_submission(value: bytes | None) -> SubmissionChange | None:
    """Decode a row of `tidings.submissions`. Returns None if the event is not an insert.
    Raises `UndecodableChangeError`.
    """
    row = _row(value)
    if row is None:
        return None
    try:
        return SubmissionChange(
            UUID(_text(row, "id")),
            _text(row, "tenant"),
            _text(row, "target"),
            _text_or_none(row, "traceparent"),
            snapshot=row[SNAPSHOT],
            nudged_at=_text_or_none(row, "nudged_at"),
        )
    except ValueError as error:
        raise UndecodableChangeError(f"not a submission: {error}") from None


def decode_result(value: bytes | None) -> ResultChange | None:
    """Decode a row of `tidings.results`. Returns None if the event is not an insert.
    Raises `UndecodableChangeError`.
    """
    row = _row(value)
    if row is None:
        return None
    try:
        return ResultChange(
            submission_id=UUID(_text(row, "submission_id")),
            event_id=UUID(_text(row, "event_id")),
            tenant=_text(row, "tenant"),
            target=_text(row, "target"),
            channel=_text_or_none(row, "channel"),
            webhook=_text_or_none(row, "webhook"),
            metadata=_json(row, "metadata"),
            traceparent=_text_or_none(row, "traceparent"),
            outcome=_outcome(row),
            reason=_text_or_none(row, "reason"),
            status_code=_number_or_none(row, "status_code"),
            content_type=_text_or_none(row, "content_type"),
            body_size=_number_or_none(row, "body_size"),
            body_sha256=_text_or_none(row, "body_sha256"),
            output=_json(row, "output"),
            submitted_at=_time(row, "submitted_at"),
            completed_at=_time(row, "created_at"),
            snapshot=row[SNAPSHOT],
        )
    except ValueError as error:
        raise UndecodableChangeError(f"not a result: {error}") from None


def decode_removal(value: bytes | None) -> ContentRemoval | None:
    """Decode a row of `tidings.content_removals`. Returns None if the event is not an insert.
    Raises `UndecodableChangeError`.
    """
    row = _row(value)
    if row is None:
        return None
    ids = row.get("message_ids")
    if not isinstance(ids, list) or not all(isinstance(id_, str) for id_ in ids):
        raise UndecodableChangeError("message_ids is not an array of strings")
    try:
        return ContentRemoval(UUID(_text(row, "submission_id")), tuple(ids), snapshot=row[SNAPSHOT])
    except ValueError as error:
        raise UndecodableChangeError(f"not a removal: {error}") from None


def _row(value: bytes | None) -> Mapping[str, Any] | None:
    """Return the inserted row, and under `SNAPSHOT` whether a snapshot read it."""
    if value is None:
        return None
    try:
        # Stricter than `json`: it rejects NaN and half surrogate pairs, which no later step could write.
        envelope = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise UndecodableChangeError(f"not JSON: {error}") from None
    if not isinstance(envelope, dict):
        raise UndecodableChangeError("not an envelope")
    operation = envelope.get("op")
    if operation is not None and not isinstance(operation, str):
        raise UndecodableChangeError("op is not a string")
    if operation not in {"c", "r"}:
        return None
    after = envelope.get("after")
    if not isinstance(after, dict):
        raise UndecodableChangeError("an envelope without a row")
    return after | {SNAPSHOT: envelope["op"] == "r"}


# The column decoders. Each rejects a value of another type, which a row from Debezium never has.


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise UndecodableChangeError(f"{name} is not a string")
    return value


def _text_or_none(row: Mapping[str, Any], name: str) -> str | None:
    return None if row.get(name) is None else _text(row, name)


def _number_or_none(row: Mapping[str, Any], name: str) -> int | None:
    value = row.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise UndecodableChangeError(f"{name} is not an integer")
    return value


def _outcome(row: Mapping[str, Any]) -> str:
    outcome = _text(row, "outcome")
    if outcome not in {"succeeded", "failed", "cancelled", "expired"}:
        raise UndecodableChangeError(f"unknown outcome {outcome[:50]!r}")
    return outcome


def _time(row: Mapping[str, Any], name: str) -> datetime:
    moment = datetime.fromisoformat(_text(row, name))
    if moment.tzinfo is None:
        raise UndecodableChangeError(f"{name} has no time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise UndecodableChangeError(f"{name} is out of range") from None


def _json(row: Mapping[str, Any], name: str) -> Any:
    """Return a value that `json.dumps` can write and UTF-8 can encode."""
    text = _text_or_none(row, name)
    if text is None:
        return None
    try:
        content = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise UndecodableChangeError(f"{name} is nested too deeply") from None
    if text.count("[") + text.count("{") > DEPTH_MAX and _depth(content) > DEPTH_MAX:
        raise UndecodableChangeError(f"{name} is nested too deeply")
    if "\\ud" in text.lower():
        json.dumps(content, ensure_ascii=False).encode()
    return content


def _no_constant(text: str) -> Any:
    raise UndecodableChangeError(f"{text} is not JSON")


def _depth(content: Any) -> int:
    level, depth = [content], 0
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth
