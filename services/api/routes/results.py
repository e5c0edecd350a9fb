"""The provider's answer: its bytes unchanged, and the images in it."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask, Response

from services.api.authentication import access
from services.api.callback import DECODED_BYTES_MAX
from services.api.coding import decoded
from services.api.dependencies import Dependencies
from services.api.presentation import RETRY_AFTER_SECONDS, image_type, images_in
from services.api.problem import ProblemError
from services.api.routes.reply import id_of, not_found
from tidings.contract.ids import SubmissionId


def add_results(app: Flask, dependencies: Dependencies) -> None:
    @app.get("/v1/submissions/<text>/result")
    @access("api_key")
    def result(text: str) -> Response:
        answer = answer_of(dependencies, dependencies.authentication.tenant(), id_of(text))
        # The provider's content is untrusted: a browser must neither execute it nor guess its type.
        headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}
        if answer.coding is not None:
            headers["Content-Encoding"] = answer.coding
        return Response(answer.body, headers=headers, content_type=answer.content_type or "application/octet-stream")

    @app.get("/v1/submissions/<text>/images/<int:number>")
    @access("api_key")
    def image(text: str, number: int) -> Response:
        found = images_in(answer_of(dependencies, dependencies.authentication.tenant(), id_of(text)).content)
        if number >= len(found):
            raise ProblemError(404, f"the answer has {len(found)} image(s)")
        chosen = found[number]
        if chosen.content is None:
            return Response(status=302, headers={"Location": str(chosen.url)})
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=31536000, immutable"}
        return Response(chosen.content, headers=headers, content_type=image_type(chosen.content))


@dataclass(frozen=True)
class Answer:
    """The provider's bytes unchanged, with the headers that describe them."""

    body: bytes
    content_type: str | None
    coding: str | None

    @property
    def content(self) -> bytes:
        """Return the bytes without their content coding, or no bytes if they cannot be decoded."""
        return decoded(self.body, self.coding, DECODED_BYTES_MAX) or b""


def answer_of(dependencies: Dependencies, tenant: str, id_: SubmissionId) -> Answer:
    """Return the answer to a submission.
    Raises `ProblemError`: 404 if there is none yet or there will be none, 410 if its content was removed.
    """
    row = dependencies.store.result(tenant, id_)
    if row is None:
        raise not_found()
    if row["outcome"] is None:
        raise ProblemError(404, "there is no result yet", Retry_After=str(RETRY_AFTER_SECONDS))
    if row["content_removed_at"] is not None:
        raise ProblemError(410, "the content of this submission was removed")
    if row["body"] is None:
        raise ProblemError(404, f"the submission ended without an answer: {row['outcome']}")
    return Answer(bytes(row["body"]), row["content_type"], row["content_encoding"])
