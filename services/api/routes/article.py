"""The endpoints of the article that Tidings began with. The third endpoint, the callback, is in callbacks.py."""

from __future__ import annotations

from flask import Flask, Response, request

from services.api.authentication import access
from services.api.dependencies import Dependencies
from services.api.models import idempotency_key, parse_json, traceparent
from services.api.presentation import images_in
from services.api.problem import Fault, ProblemError
from services.api.routes.reply import body_of, json_reply
from services.api.routes.results import answer_of
from tidings.contract.ids import parse_submission_id


def add_article(app: Flask, dependencies: Dependencies) -> None:
    @app.route("/generate-image", methods=["GET", "POST"])
    @access("api_key")
    def generate_image() -> Response:
        tenant = dependencies.authentication.tenant()
        prompt = _prompt(dependencies)
        content = {"target": dependencies.settings.image_target, "input": {"prompt": prompt}}
        key = idempotency_key(request.headers.get("Idempotency-Key"))
        trace = traceparent(request.headers.get("traceparent"))
        stored = dependencies.acceptor.accept(dependencies.acceptor.row(tenant, content, key=key, trace=trace))
        if request.accept_mimetypes.best_match(["text/plain", "application/json"]) == "application/json":
            return json_reply({"submissionId": str(stored.id)})
        return Response(f"Generating image. Your submission id: {stored.id}", content_type="text/plain; charset=utf-8")

    @app.get("/get-image-is-ready")
    @access("api_key")
    def get_image_is_ready() -> Response:
        tenant = dependencies.authentication.tenant()
        id_ = parse_submission_id(request.args.get("submissionId", ""))
        found = None if id_ is None else dependencies.store.get(tenant, id_)
        if id_ is None or found is None:
            return json_reply({"status": "notFound"})
        row = found[0]
        if row["outcome"] is None:
            return json_reply({"status": "pending"})
        if row["outcome"] != "succeeded":
            return json_reply({"status": "unableToGenerate", "reason": row["reason"]})
        pictures = images_in(answer_of(dependencies, tenant, id_).content)
        if not pictures:
            return json_reply({"status": "unableToGenerate", "reason": "the answer contains no image"})
        url = pictures[0].url or f"{dependencies.settings.public_url}/v1/submissions/{id_}/images/0"
        return json_reply({"status": "completed", "imageUrl": url})


def _prompt(dependencies: Dependencies) -> str:
    """Return the prompt from the query or the body. Raises `ProblemError`."""
    if request.method == "HEAD":
        # Flask treats a HEAD as a GET, which submits; a HEAD must be safe (RFC 9110, section 9.2.1).
        raise ProblemError(405, "a HEAD submits nothing", Allow="GET, POST, OPTIONS")
    prompt = request.args.get("prompt")
    if prompt is None and request.method == "POST":
        content = parse_json(body_of(request, dependencies.settings.input_bytes_max), request.content_type or "")
        prompt = content.get("prompt") if isinstance(content, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise ProblemError(400, "a prompt is required", Fault("prompt", "is missing"))
    return prompt
