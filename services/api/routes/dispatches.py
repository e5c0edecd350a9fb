"""Bodies for the dispatcher, one batch per request: docs/decisions/0002-dispatcher-fetches-bodies.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Flask, Response, request

from services.api.authentication import access
from services.api.dependencies import Dependencies
from services.api.models import parse_json
from services.api.problem import Fault, ProblemError
from services.api.routes.reply import body_of, json_reply
from tidings.contract.ids import SubmissionId, parse_submission_id

DISPATCH_IDS_MAX = 100
DISPATCH_BYTES_MAX = 16 * 1024 * 1024
# A hundred ids and ample white space.
REQUEST_BYTES_MAX = 64 * 1024


def add_dispatches(app: Flask, dependencies: Dependencies) -> None:
    @app.post("/internal/dispatches")
    @access("internal")
    def dispatches() -> Response:
        dependencies.authentication.internal()
        content = parse_json(body_of(request, REQUEST_BYTES_MAX), request.content_type or "")
        ids = content.get("ids") if isinstance(content, dict) else None
        parsed = [parse_submission_id(str(text)) for text in ids] if isinstance(ids, list) else [None]
        known = [id_ for id_ in parsed if id_ is not None]
        if len(known) != len(parsed) or len(known) > DISPATCH_IDS_MAX:
            raise ProblemError(
                400, "ids is not valid", Fault("ids", f"must be up to {DISPATCH_IDS_MAX} submission ids")
            )
        return json_reply(_dispatches(dependencies, known))


def _dispatches(dependencies: Dependencies, ids: list[SubmissionId]) -> dict[str, Any]:
    fitting, left_out = _within_limit(dependencies.store.dispatch(ids))
    bodies = dependencies.store.bodies([row["id"] for row in fitting if not row["ended"]])
    found = [
        {
            "id": str(row["id"]),
            "target": row["target"],
            "content_type": row["content_type"],
            "body": "" if row["ended"] else bodies[row["id"]].decode(),
            "ended": row["ended"],
        }
        for row in fitting
        if row["ended"] or row["id"] in bodies  # a month may be dropped between the two statements
    ]
    return {"submissions": found, "left_out": left_out}


def _within_limit(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the submissions whose bodies fit together, always including the first, and the ids of the others."""
    fitting: list[dict[str, Any]] = []
    left_out: list[str] = []
    size = 0
    for row in rows:
        if fitting and size + row["size"] > DISPATCH_BYTES_MAX:
            left_out.append(str(row["id"]))
            continue
        size += row["size"]
        fitting.append(row)
    return fitting, left_out
