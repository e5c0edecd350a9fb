"""Submissions: create one or a batch, list, show, cancel."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flask import Flask, Request, Response, request

from services.api.authentication import guarded_by
from services.api.intake import accepted, accepted_headers
from services.api.models import idempotency_key, parse_json, traceparent
from services.api.parts import Parts
from services.api.presentation import RETRY_AFTER_SECONDS, listed, submission
from services.api.problem import Fault, ProblemError
from services.api.routes.reply import body_of, id_of, json_reply, not_found
from tidings.contract.ids import SubmissionId, parse_submission_id

LIST_MAX = 100
# With a filter, a page examines at most this many submissions: some milliseconds of Postgres.
LOOK_MAX = 1000
# Not str.isdigit, which accepts digits that int rejects. Three digits at most, because int rejects very long numbers.
_LIMIT = re.compile(r"[0-9]{1,3}")
STATUSES = ("queued", "running", "retrying", "succeeded", "failed", "cancelled", "expired")


def add_submissions(app: Flask, parts: Parts) -> None:
    @app.post("/v1/submissions")
    @guarded_by("api_key")
    def submit() -> Response:
        tenant = parts.authentication.tenant()
        content = parse_json(body_of(request, parts.settings.input_bytes_max), request.content_type or "")
        row, stored = parts.intake.one(
            tenant,
            content,
            key=idempotency_key(request.headers.get("Idempotency-Key")),
            trace=traceparent(request.headers.get("traceparent")),
        )
        if stored.repeated:
            return shown_reply(parts, tenant, stored.id)
        return json_reply(accepted(row), 202, accepted_headers(row))

    @app.post("/v1/submissions/batch")
    @guarded_by("api_key")
    def submit_batch() -> Response:
        tenant = parts.authentication.tenant()
        content = parse_json(body_of(request, parts.settings.batch_bytes_max), request.content_type or "")
        rows = parts.intake.many(
            tenant,
            content,
            key=idempotency_key(request.headers.get("Idempotency-Key")),
            trace=traceparent(request.headers.get("traceparent")),
        )
        return json_reply({"submissions": [accepted(row) for row in rows]}, 202)

    @app.get("/v1/submissions")
    @guarded_by("api_key")
    def list_submissions() -> Response:
        tenant = parts.authentication.tenant()
        page, cursor = parts.store.list(tenant, _filters(request))
        return json_reply(
            {"submissions": [listed(row) for row in page], "cursor": None if cursor is None else str(cursor)}
        )

    @app.get("/v1/submissions/<id:text>")
    @guarded_by("api_key")
    def show(text: str) -> Response:
        return shown_reply(parts, parts.authentication.tenant(), id_of(text))

    @app.delete("/v1/submissions/<id:text>")
    @guarded_by("api_key")
    def cancel(text: str) -> Response:
        tenant, id_ = parts.authentication.tenant(), id_of(text)
        if not parts.store.cancel(tenant, id_):
            found = parts.store.get(tenant, id_)
            if found is None:
                raise not_found()
            raise ProblemError(409, f"the submission has ended already: {found[0]['outcome']}")
        return shown_reply(parts, tenant, id_)


def shown_reply(parts: Parts, tenant: str, id_: SubmissionId) -> Response:
    found = parts.store.get(tenant, id_)
    if found is None:
        raise not_found()
    content = submission(*found, datetime.now(UTC))
    response = json_reply(content)
    if content["outcome"] is None:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    response.add_etag()
    response.make_conditional(request)
    return response


def _filters(asked: Request) -> dict[str, Any]:
    faults: list[Fault] = []
    known = {"status", "target", "since", "cursor", "limit"}
    faults += [Fault(name, "is not known") for name in asked.args if name not in known]
    status = asked.args.get("status")
    if status is not None and status not in STATUSES:
        faults.append(Fault("status", f"must be one of {', '.join(STATUSES)}"))
    since = None
    if (text := asked.args.get("since")) is not None:
        try:
            since = datetime.fromisoformat(text)
            since = since if since.tzinfo else since.replace(tzinfo=UTC)
        except ValueError:
            faults.append(Fault("since", "must be a time as in RFC 3339"))
    cursor: UUID | None = None
    if (text := asked.args.get("cursor")) is not None:
        cursor = parse_submission_id(text)
        if cursor is None:
            faults.append(Fault("cursor", "must be the cursor of an earlier answer"))
    target = asked.args.get("target")
    if target is not None and "\0" in target:
        faults.append(Fault("target", "is not known"))  # Postgres cannot be asked for this name either
    limit = asked.args.get("limit", "20")
    if not _LIMIT.fullmatch(limit) or not 1 <= int(limit) <= LIST_MAX:
        faults.append(Fault("limit", f"must be a whole number from 1 to {LIST_MAX}"))
    if faults:
        raise ProblemError(400, "the query is not valid", *faults)
    found = {"status": status, "target": target, "since": since, "cursor": cursor, "limit": int(limit)}
    return found | {"look": int(limit) + 1 if status is None and target is None else LOOK_MAX}
