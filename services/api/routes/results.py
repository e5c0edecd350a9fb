"""What a provider answered: its bytes as they came, and the images in them."""

from __future__ import annotations

from flask import Flask, Response

from services.api.authentication import guarded_by
from services.api.parts import Parts
from services.api.presentation import RETRY_AFTER_SECONDS, image_type, images_in
from services.api.problem import ProblemError
from services.api.routes.reply import id_of, not_found
from tidings.ids import SubmissionId


def add_results(app: Flask, parts: Parts) -> None:
    @app.get("/v1/submissions/<text>/result")
    @guarded_by("api_key")
    def result(text: str) -> Response:
        body, content_type = answer_of(parts, parts.authentication.tenant(), id_of(text))
        # The provider's word is not ours: a browser must not run what it sent, nor guess its type.
        headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}
        return Response(body, headers=headers, content_type=content_type or "application/octet-stream")

    @app.get("/v1/submissions/<text>/images/<int:number>")
    @guarded_by("api_key")
    def image(text: str, number: int) -> Response:
        body, _ = answer_of(parts, parts.authentication.tenant(), id_of(text))
        found = images_in(body)
        if number >= len(found):
            raise ProblemError(404, f"the answer has {len(found)} image(s)")
        chosen = found[number]
        if chosen.content is None:
            return Response(status=302, headers={"Location": str(chosen.url)})
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=31536000, immutable"}
        return Response(chosen.content, headers=headers, content_type=image_type(chosen.content))


def answer_of(parts: Parts, tenant: str, id_: SubmissionId) -> tuple[bytes, str | None]:
    """Body and content type. Raises `ProblemError` 404 while there is none, or when there will be none."""
    row = parts.store.result(tenant, id_)
    if row is None:
        raise not_found()
    if row["outcome"] is None:
        raise ProblemError(404, "there is no result yet", Retry_After=str(RETRY_AFTER_SECONDS))
    if row["body"] is None:
        raise ProblemError(404, f"the submission ended without an answer: {row['outcome']}")
    return bytes(row["body"]), row["content_type"]
