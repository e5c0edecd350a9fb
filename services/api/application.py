"""The Flask application: routes and nothing else. Built by `create_app` from what it is given."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from flask import Flask, Request, Response, request
from prometheus_client import CollectorRegistry, Counter, generate_latest
from structlog.stdlib import BoundLogger

from services.api.authentication import Authentication, guarded_by
from services.api.callback import decide, read_callback
from services.api.intake import Intake, accepted, accepted_headers
from services.api.models import idempotency_key, parse_json, traceparent
from services.api.openapi import document
from services.api.presentation import RETRY_AFTER_SECONDS, image_type, images, listed, submission
from services.api.problem import Fault, ProblemError, register_errors
from services.api.settings import ApiSettings
from services.api.store import Store
from tidings.ids import SubmissionId, parse_submission_id
from tidings.signature import InvalidSignatureError, verify
from tidings.targets import Target

VERSION = "0.1.0"
LIST_MAX = 100
# Not str.isdigit, which takes digits that int does not; nor a number so long that int refuses it.
_LIMIT = re.compile(r"[0-9]{1,3}")
DISPATCH_IDS_MAX = 100
DISPATCH_BYTES_MAX = 16 * 1024 * 1024
STATUSES = ("queued", "running", "retrying", "succeeded", "failed", "cancelled", "expired")


@dataclass(frozen=True)
class Parts:
    """What the views work with."""

    settings: ApiSettings
    store: Store
    intake: Intake
    authentication: Authentication
    targets: dict[str, Target]
    registry: CollectorRegistry
    log: BoundLogger


def create_app(parts: Parts) -> Flask:
    """The application, ready to be served; it opens nothing by itself."""
    app = Flask("tidings", static_folder=None)
    # Werkzeug's limit is the outermost; each view narrows it before it reads.
    app.config["MAX_CONTENT_LENGTH"] = parts.settings.callback_bytes_max
    register_errors(app)
    _submissions(app, parts)
    _article(app, parts)
    _relay(app, parts)
    _operations(app, parts)
    return app


def _submissions(app: Flask, parts: Parts) -> None:  # noqa: C901  a list of routes
    @app.post("/v1/submissions")
    @guarded_by("api_key")
    def submit() -> Response:
        tenant = parts.authentication.tenant()
        content = parse_json(_body(request, parts.settings.input_bytes_max), request.content_type or "")
        row, stored = parts.intake.one(
            tenant,
            content,
            key=idempotency_key(request.headers.get("Idempotency-Key")),
            trace=traceparent(request.headers.get("traceparent")),
        )
        if stored.repeated:
            return _shown(parts, tenant, stored.id)
        return _json(accepted(row), 202, accepted_headers(row))

    @app.post("/v1/submissions/batch")
    @guarded_by("api_key")
    def submit_batch() -> Response:
        tenant = parts.authentication.tenant()
        content = parse_json(_body(request, parts.settings.callback_bytes_max), request.content_type or "")
        rows = parts.intake.many(tenant, content, trace=traceparent(request.headers.get("traceparent")))
        return _json({"submissions": [accepted(row) for row in rows]}, 202)

    @app.get("/v1/submissions")
    @guarded_by("api_key")
    def list_submissions() -> Response:
        filters = _filters(request)
        rows = parts.store.list(parts.authentication.tenant(), filters | {"limit": filters["limit"] + 1})
        page = rows[: filters["limit"]]
        cursor = str(page[-1]["id"]) if len(rows) > len(page) else None
        return _json({"submissions": [listed(row) for row in page], "cursor": cursor})

    @app.get("/v1/submissions/<text>")
    @guarded_by("api_key")
    def show(text: str) -> Response:
        return _shown(parts, parts.authentication.tenant(), _id(text))

    @app.delete("/v1/submissions/<text>")
    @guarded_by("api_key")
    def cancel(text: str) -> Response:
        tenant, id_ = parts.authentication.tenant(), _id(text)
        if not parts.store.cancel(tenant, id_):
            found = parts.store.get(tenant, id_)
            if found is None:
                raise _not_found()
            raise ProblemError(409, f"the submission has ended already: {found[0]['outcome']}")
        return _shown(parts, tenant, id_)

    @app.get("/v1/submissions/<text>/result")
    @guarded_by("api_key")
    def result(text: str) -> Response:
        body, content_type = _answer(parts, parts.authentication.tenant(), _id(text))
        # The provider's word is not ours: a browser must not run what it sent, nor guess its type.
        headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}
        return Response(body, headers=headers, content_type=content_type or "application/octet-stream")

    @app.get("/v1/submissions/<text>/images/<int:number>")
    @guarded_by("api_key")
    def image(text: str, number: int) -> Response:
        body, _ = _answer(parts, parts.authentication.tenant(), _id(text))
        found = images(_loads(body))
        if number >= len(found):
            raise ProblemError(404, f"the answer has {len(found)} image(s)")
        chosen = found[number]
        if chosen.content is None:
            return Response(status=302, headers={"Location": str(chosen.url)})
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=31536000, immutable"}
        return Response(chosen.content, headers=headers, content_type=image_type(chosen.content))


def _article(app: Flask, parts: Parts) -> None:
    @app.route("/generate-image", methods=["GET", "POST"])
    @guarded_by("api_key")
    def generate_image() -> Response:
        tenant = parts.authentication.tenant()
        prompt = request.args.get("prompt")
        if prompt is None and request.method == "POST":
            content = parse_json(_body(request, parts.settings.input_bytes_max), request.content_type or "")
            prompt = content.get("prompt") if isinstance(content, dict) else None
        if not isinstance(prompt, str) or not prompt.strip():
            raise ProblemError(400, "a prompt is needed", Fault("prompt", "is missing"))
        content = {"target": parts.settings.image_target, "input": {"prompt": prompt}}
        row, _ = parts.intake.one(tenant, content, key=None, trace=traceparent(request.headers.get("traceparent")))
        if request.accept_mimetypes.best_match(["text/plain", "application/json"]) == "application/json":
            return _json({"submissionId": str(row.id)})
        return Response(f"Generating image. Your submission id: {row.id}", content_type="text/plain; charset=utf-8")

    @app.get("/get-image-is-ready")
    @guarded_by("api_key")
    def get_image_is_ready() -> Response:
        tenant = parts.authentication.tenant()
        id_ = parse_submission_id(request.args.get("submissionId", ""))
        found = None if id_ is None else parts.store.get(tenant, id_)
        if id_ is None or found is None:
            return _json({"status": "notFound"})
        row = found[0]
        if row["outcome"] is None:
            return _json({"status": "pending"})
        if row["outcome"] != "succeeded":
            return _json({"status": "unableToGenerate", "reason": row["reason"]})
        body, _ = _answer(parts, tenant, id_)
        pictures = images(_loads(body))
        if not pictures:
            return _json({"status": "unableToGenerate", "reason": "the answer holds no image"})
        url = pictures[0].url or f"{parts.settings.public_url}/v1/submissions/{id_}/images/0"
        return _json({"status": "completed", "imageUrl": url})


def _relay(app: Flask, parts: Parts) -> None:
    callbacks = Counter("tidings_callbacks", "Callbacks of the relay", ["outcome"], registry=parts.registry)
    keys = [parts.settings.current_signing_key.get_secret_value(), parts.settings.next_signing_key.get_secret_value()]
    bases = dict.fromkeys([parts.settings.callback_url or parts.settings.public_url, parts.settings.public_url])

    @app.post("/callbacks/relay")
    @app.post("/image-callback", endpoint="image_callback")
    @guarded_by("signature")
    def callback() -> Response:
        raw = _body(request, parts.settings.callback_bytes_max)
        path = request.path + (f"?{request.query_string.decode('latin-1')}" if request.query_string else "")
        try:
            verify(request.headers.get("Upstash-Signature", ""), raw, keys=keys, urls=[base + path for base in bases])
        except InvalidSignatureError as error:
            callbacks.labels("forged").inc()
            raise ProblemError(401, str(error), Fault("Upstash-Signature", str(error))) from None
        told, answer = read_callback(raw)
        id_ = parse_submission_id(request.args.get("submission", ""))
        found = None if id_ is None else parts.store.target_of(id_)
        if id_ is None or found is None:
            # Signed, so it is our relay, yet of nothing we have: rows are never deleted one by one, so no repeat
            # will find it either.
            callbacks.labels("unknown").inc()
            raise ProblemError(400, "there is no such submission", Fault("submission", "is not known"))
        attempt, result = decide(told, answer, parts.targets.get(found[0]), datetime.now(UTC))
        ended = parts.store.record(id_, found[1], attempt, result)
        outcome = result.outcome if result is not None and ended else "attempt" if result is None else "repeat"
        callbacks.labels(outcome).inc()
        return _json({"status": outcome})

    @app.post("/internal/dispatches")
    @guarded_by("internal")
    def dispatches() -> Response:
        parts.authentication.internal()
        content = parse_json(_body(request, 64 * 1024), request.content_type or "")
        ids = content.get("ids") if isinstance(content, dict) else None
        parsed = [parse_submission_id(str(text)) for text in ids] if isinstance(ids, list) else [None]
        known = [id_ for id_ in parsed if id_ is not None]
        if len(known) != len(parsed) or len(known) > DISPATCH_IDS_MAX:
            raise ProblemError(
                400, "ids is not valid", Fault("ids", f"must be up to {DISPATCH_IDS_MAX} submission ids")
            )
        return _json(_dispatches(parts, known))


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


def _operations(app: Flask, parts: Parts) -> None:
    @app.get("/healthz")
    @guarded_by("public")
    def healthz() -> Response:
        return _json({"status": "ok"})

    @app.get("/readyz")
    @guarded_by("public")
    def readyz() -> Response:
        try:
            parts.store.ping()
        except Exception as error:  # noqa: BLE001  whatever it is, we are not ready
            return _json({"status": "not ready", "faults": {"postgres": type(error).__name__}}, 503)
        return _json({"status": "ok"})

    @app.get("/openapi.json")
    @guarded_by("public")
    def openapi() -> Response:
        return _json(document(VERSION))

    @app.get("/metrics")
    @guarded_by("public")
    def metrics() -> Response:
        return Response(generate_latest(parts.registry), content_type="text/plain; version=0.0.4; charset=utf-8")


def _shown(parts: Parts, tenant: str, id_: SubmissionId) -> Response:
    found = parts.store.get(tenant, id_)
    if found is None:
        raise _not_found()
    content = submission(*found, datetime.now(UTC))
    response = _json(content)
    if content["outcome"] is None:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    response.add_etag()
    response.make_conditional(request)
    return response


def _answer(parts: Parts, tenant: str, id_: SubmissionId) -> tuple[bytes, str | None]:
    row = parts.store.result(tenant, id_)
    if row is None:
        raise _not_found()
    if row["outcome"] is None:
        raise ProblemError(404, "there is no result yet", Retry_After=str(RETRY_AFTER_SECONDS))
    if row["body"] is None:
        raise ProblemError(404, f"the submission ended without an answer: {row['outcome']}")
    return bytes(row["body"]), row["content_type"]


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
        faults.append(Fault("target", "is not known"))  # nor can Postgres be asked for it
    limit = asked.args.get("limit", "20")
    if not _LIMIT.fullmatch(limit) or not 1 <= int(limit) <= LIST_MAX:
        faults.append(Fault("limit", f"must be a whole number from 1 to {LIST_MAX}"))
    if faults:
        raise ProblemError(400, "the query is not valid", *faults)
    return {"status": status, "target": target, "since": since, "cursor": cursor, "limit": int(limit)}


def _body(asked: Request, bytes_max: int) -> bytes:
    if (asked.content_length or 0) > bytes_max:
        raise ProblemError(413, f"the body is larger than {bytes_max} bytes")
    body = asked.get_data(cache=False)
    if len(body) > bytes_max:
        raise ProblemError(413, f"the body is larger than {bytes_max} bytes")
    return body


def _id(text: str) -> SubmissionId:
    id_ = parse_submission_id(text)
    if id_ is None:
        raise _not_found()
    return id_


def _not_found() -> ProblemError:
    return ProblemError(404, "there is no such submission")


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status=status, headers=headers, content_type="application/json")
