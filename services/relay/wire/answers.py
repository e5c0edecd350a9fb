"""The JSON objects of the protocol's answers. Pure."""

from __future__ import annotations

import base64
from typing import Any

from services.relay.wire.callback import milliseconds


def message_object(row: dict[str, Any]) -> dict[str, Any]:
    """`GET /v2/messages/{id}`; `state`, `retried` and `nextDeliveryTime` are ours. Forwarded headers that hold keys are redacted."""
    content: dict[str, Any] = {
        "messageId": row["id"],
        "url": row["url"],
        "method": row["method"],
        "header": {name: [redacted(name, value)] for name, value in row["headers"].items()},
        "maxRetries": row["retries_max"],
        "notBefore": milliseconds(row["not_before"]),
        "createdAt": milliseconds(row["created_at"]),
        "callerIP": row["caller_ip"],
        "state": row["state"],
        "retried": row["retried"],
    }
    try:
        content["body"] = row["body"].decode()
    except UnicodeDecodeError:
        content["bodyBase64"] = base64.b64encode(row["body"]).decode()
    for name, key in (("callback", "callback"), ("failureCallback", "failure_callback")):
        if row[key] is not None:
            content[name] = row[key]["url"]
    if row["label"] is not None:
        content |= {"label": row["label"], "labels": [row["label"]]}
    if row["retry_delay"] is not None:
        content["retryDelayExpression"] = row["retry_delay"]
    if row["state"] == "waiting":
        content["nextDeliveryTime"] = milliseconds(row["due_at"])
    return content


def redacted(name: str, value: str) -> str:
    """A header's value as an answer may show it."""
    lowered = name.lower()
    secret = any(word in lowered for word in ("authorization", "key", "token", "secret", "cookie"))
    return "REDACTED" if secret else value
