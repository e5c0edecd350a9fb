"""The parameters of the routes in the OpenAPI document, by name: a name means the same on every route."""

from __future__ import annotations

from typing import Any

from services.api.models import IDEMPOTENCY_KEY_MAX
from services.api.routes.submissions import LIST_MAX, STATUSES

_UUID = {"type": "string", "format": "uuid"}
SCHEMAS: dict[str, dict[str, Any]] = {
    "id": _UUID,
    "number": {"type": "integer", "minimum": 0},
    "status": {"type": "string", "enum": list(STATUSES)},
    "target": {"type": "string", "minLength": 1, "maxLength": 63},
    "since": {"type": "string", "format": "date-time"},
    "cursor": _UUID,
    "limit": {"type": "integer", "minimum": 1, "maximum": LIST_MAX, "default": 20},
    "prompt": {"type": "string", "minLength": 1},
    "submissionId": _UUID,
    "submission": _UUID,
    "Idempotency-Key": {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_MAX},
    "If-None-Match": {"type": "string"},
    "traceparent": {"type": "string"},
}
# On POST /generate-image, `prompt` may be in the body instead.
REQUIRED = {("/callbacks/relay", "submission"), ("/image-callback", "submission")}


def parameters(method: str, path: str, query: tuple[str, ...], headers: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the parameters of one route: those of its path, its query and its headers."""
    in_path = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    found = [{"name": name, "in": "path", "required": True, "schema": SCHEMAS[name]} for name in in_path]
    for where, names in (("query", query), ("header", headers)):
        for name in names:
            required = (path, name) in REQUIRED or (method, name) == ("get", "prompt")
            found.append({"name": name, "in": where, "required": required, "schema": SCHEMAS[name]})
    return found
