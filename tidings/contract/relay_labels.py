"""The labels of our messages at the relay, by which one process finds what another has sent."""

from __future__ import annotations

from uuid import UUID


def webhook_label(submission_id: UUID | str) -> str:
    """Of a submission's webhooks. Its calls and their callbacks have the id itself: a call that is cancelled by it must
    not take a webhook along.
    """
    return f"webhook-{submission_id}"
