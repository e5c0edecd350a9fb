"""The labels of messages at the relay. With them one process finds the messages of another."""

from __future__ import annotations

from uuid import UUID


def webhook_label(submission_id: UUID | str) -> str:
    """Return the label of a submission's webhooks.
    Its calls and their callbacks have the id itself as label, so that cancelling a call does not cancel a webhook.
    """
    return f"webhook-{submission_id}"
