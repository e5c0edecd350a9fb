"""Ids. All are UUID v7, so that an id is also a time and rows arrive in index order."""

from __future__ import annotations

from typing import NewType
from uuid import UUID

import uuid_utils

SubmissionId = NewType("SubmissionId", UUID)
EventId = NewType("EventId", UUID)


def new_submission_id() -> SubmissionId:
    return SubmissionId(UUID(bytes=uuid_utils.uuid7().bytes))


def batch_ids(first: UUID, count: int) -> list[SubmissionId]:
    """Return the ids of a batch from its first one on; each is one more than the one before. See `new_batch_id`."""
    return [SubmissionId(UUID(int=first.int + number)) for number in range(count)]


def new_batch_id() -> SubmissionId:
    """Return the first id of a batch of up to 4096: its last 12 bits are 0, which leaves the time and
    60 random bits.
    """
    return SubmissionId(UUID(int=new_submission_id().int & ~0xFFF))


def new_event_id() -> EventId:
    return EventId(UUID(bytes=uuid_utils.uuid7().bytes))


def parse_submission_id(text: str) -> SubmissionId | None:
    """Parse an id in its canonical form, or return None; braces, URNs and upper case are rejected, so that an id has
    one spelling.
    """
    try:
        parsed = UUID(text)
    except ValueError:
        return None
    return SubmissionId(parsed) if str(parsed) == text else None
