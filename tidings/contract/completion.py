"""The completion event: CloudEvents 1.0 in Kafka's binary content mode, made from a result's change.

Sources: CloudEvents 1.0.2 §3.1; CloudEvents Kafka protocol binding 1.0.2 §3.2; docs/reference/events.md for the value.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tidings.contract.change import ResultChange


@dataclass(frozen=True)
class Completion:
    """The record for the topic; `key` is the id of the submission."""

    key: bytes
    headers: tuple[tuple[str, bytes], ...]
    value: bytes


def event_type(outcome: str) -> str:
    return f"dev.tidings.submission.{outcome}"


def completion_fields(change: ResultChange, public_url: str) -> dict[str, Any]:
    """Return the value of the event, as a dict that is valid JSON."""
    submission = f"{public_url}/v1/submissions/{change.submission_id}"
    result = {
        "url": f"{submission}/result",
        "content_type": change.content_type,
        "size": change.body_size,
        "sha256": change.body_sha256,
    }
    return {
        "submission_id": str(change.submission_id),
        "tenant": change.tenant,
        "target": change.target,
        "channel": change.channel,
        "outcome": change.outcome,
        "reason": change.reason,
        "status_code": change.status_code,
        "output": change.output,
        "result": None if change.body_size is None else result,
        "metadata": change.metadata,
        "submitted_at": timestamp(change.submitted_at),
        "completed_at": timestamp(change.completed_at),
    }


def completion(change: ResultChange, public_url: str) -> Completion:
    """Build the event of `change`. The same row always gives the same event, even if it is emitted several times."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(change.event_id),
        "ce_source": public_url,
        "ce_type": event_type(change.outcome),
        "ce_subject": str(change.submission_id),
        "ce_time": timestamp(change.completed_at),
        "content-type": "application/json",
    }
    if change.traceparent:
        headers["ce_traceparent"] = change.traceparent
    value = json.dumps(completion_fields(change, public_url), ensure_ascii=False, separators=(",", ":"))
    return Completion(
        key=str(change.submission_id).encode(),
        headers=tuple((name, text.encode()) for name, text in headers.items()),
        value=value.encode(),
    )


def timestamp(moment: datetime) -> str:
    """Format a time as RFC 3339 in UTC, to the microsecond, with Z."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
