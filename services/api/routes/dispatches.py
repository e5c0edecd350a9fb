"""Bodies for the dispatcher, a batch at a time: docs/decisions/0002-dispatcher-fetches-bodies.md."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, request

from services.api.authentication import guarded_by
from services.api.models import parse_json
from services.api.parts import Parts
from services.api.problem import Fault, ProblemError
from services.api.routes.reply import body_of, json_reply
from tidings.ids import SubmissionId, parse_submission_id

DISPATCH_IDS_MAX = 100
DISPATCH_BYTES_MAX = 16 * 1024 * 1024


def add_dispatches(app: Flask, parts: Parts) -> None:
    @app.post("/internal/dispatches")
    @guarded_by("internal")
    def dispatches() -> Response:
        parts.authentication.internal()
        content = parse_json(body_of(request, 64 * 1024), request.content_type or "")
        ids = content.get("ids") if isinstance(content, dict) else None
        parsed = [parse_submission_id(str(text)) for text in ids] if isinstance(ids, list) else [None]
        known = [id_ for id_ in parsed if id_ is not None]
        if len(known) != len(parsed) or len(known) > DISPATCH_IDS_MAX:
            raise ProblemError(
                400, "ids is not valid", Fault("ids", f"must be up to {DISPATCH_IDS_MAX} submission ids")
            )
        return json_reply(_dispatches(parts, known))


def _dispatches(parts: Parts, ids: list[SubmissionId]) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    left_out: list[str] = []
    size = 0
    for row in parts.store.dispatch(ids):
        size += len(row["body"])
        if found and size > DISPATCH_BYTES_MAX:
            left_out.append(str(row["id"]))
            continue
        found.append(
            {
                "id": str(row["id"]),
                "target": row["target"],
                "content_type": row["content_type"],
                "body": bytes(row["body"]).decode(),
                "ended": row["ended"],
            }
        )
    return {"submissions": found, "left_out": left_out}
