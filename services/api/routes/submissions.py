"""Submissions: create one or a batch, list, show, cancel."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flask import Flask, Response, request
from werkzeug.datastructures import MultiDict

from services.api.acceptance import accepted
from services.api.authentication import access
from services.api.dependencies import Dependencies
from services.api.models import idempotency_key, parse_json, traceparent
from services.api.presentation import listed
from services.api.problem import Fault, ProblemError
from services.api.routes.reply import body_of, id_of, json_reply, not_found, response_of
from services.api.submit import read_request, shown
from tidings.contract.ids import SubmissionId, parse_submission_id

LIST_MAX = 100
# With a filter, a page examines at most this many submissions: some milliseconds of Postgres.
LOOK_MAX = 1000
# Not str.isdigit, which accepts digits that int rejects. Three digits at most, because int rejects very long numbers.
_LIMIT = re.compile(r"[0-9]{1,3}")
STATUSES = ("queued", "running", "retrying", "succeeded", "failed", "cancelled", "expired")


def add_submissions(app: Flask, dependencies: Dependencies) -> None:
    @app.post("/v1/submissions")
    @access("api_key")
    def submit() -> Response:
        tenant = dependencies.authentication.tenant()
        body = body_of(request, dependencies.settings.input_bytes_max)
        return response_of(dependencies.submit.submit(read_request(tenant, request.headers, body)))

    @app.post("/v1/submissions/batch")
    @access("api_key")
    def submit_batch() -> Response:
        tenant = dependencies.authentication.tenant()
        content = parse_json(body_of(request, dependencies.settings.batch_bytes_max), request.content_type or "")
        rows = dependencies.acceptor.accept_batch(
            tenant,
            content,
            key=idempotency_key(request.headers.get("Idempotency-Key")),
            trace=traceparent(request.headers.get("traceparent")),
        )
        return json_reply({"submissions": [accepted(row) for row in rows]}, 202)

    @app.get("/v1/submissions")
    @access("api_key")
    def list_submissions() -> Response:
        tenant = dependencies.authentication.tenant()
        page, cursor = dependencies.store.list(tenant, _filters(request.args))
        return json_reply(
            {"submissions": [listed(row) for row in page], "cursor": None if cursor is None else str(cursor)}
        )

    @app.get("/v1/submissions/<id:text>")
    @access("api_key")
    def show(text: str) -> Response:
        return shown_response(dependencies, dependencies.authentication.tenant(), id_of(text))

    @app.delete("/v1/submissions/<id:text>")
    @access("api_key")
    def cancel(text: str) -> Response:
        tenant, id_ = dependencies.authentication.tenant(), id_of(text)
        if not dependencies.store.cancel(tenant, id_):
            found = dependencies.store.get(tenant, id_)
            if found is None:
                raise not_found()
            raise ProblemError(409, f"the submission has ended already: {found[0]['outcome']}")
        return shown_response(dependencies, tenant, id_)


def shown_response(dependencies: Dependencies, tenant: str, id_: SubmissionId) -> Response:
    response = response_of(shown(dependencies.store, tenant, id_))
    response.make_conditional(request)
    return response


def _filters(query: MultiDict[str, str]) -> dict[str, Any]:
    faults: list[Fault] = []
    known = {"status", "target", "since", "cursor", "limit"}
    faults += [Fault(name, "is not known") for name in query if name not in known]
    status = query.get("status")
    if status is not None and status not in STATUSES:
        faults.append(Fault("status", f"must be one of {', '.join(STATUSES)}"))
    since = None
    if (text := query.get("since")) is not None:
        try:
            since = datetime.fromisoformat(text)
            since = since if since.tzinfo else since.replace(tzinfo=UTC)
        except ValueError:
            faults.append(Fault("since", "must be an RFC 3339 time"))
    cursor: UUID | None = None
    if (text := query.get("cursor")) is not None:
        cursor = parse_submission_id(text)
        if cursor is None:
            faults.append(Fault("cursor", "must be the cursor of an earlier response"))
    target = query.get("target")
    if target is not None and "\0" in target:
        faults.append(Fault("target", "is not known"))  # Postgres cannot be asked for this name either
    limit = query.get("limit", "20")
    if not _LIMIT.fullmatch(limit) or not 1 <= int(limit) <= LIST_MAX:
        faults.append(Fault("limit", f"must be a whole number from 1 to {LIST_MAX}"))
    if faults:
        raise ProblemError(400, "the query is not valid", *faults)
    found = {"status": status, "target": target, "since": since, "cursor": cursor, "limit": int(limit)}
    return found | {"look": int(limit) + 1 if status is None and target is None else LOOK_MAX}
