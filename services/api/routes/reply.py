"""Reads a request within its limits, and converts replies to Flask's responses."""

from __future__ import annotations

from typing import Any

from flask import Request, Response

from services.api import reply
from services.api.problem import ProblemError
from tidings.contract.ids import SubmissionId, parse_submission_id


def body_of(request: Request, bytes_max: int) -> bytes:
    """Return the body. Raises `ProblemError` 413."""
    if (request.content_length or 0) > bytes_max:
        raise ProblemError(413, f"the body is larger than {bytes_max} bytes")
    body = request.get_data(cache=False)
    if len(body) > bytes_max:
        raise ProblemError(413, f"the body is larger than {bytes_max} bytes")
    return body


def id_of(text: str) -> SubmissionId:
    """Parse the id in a path. Raises `ProblemError` 404, because a submission with an invalid id cannot exist."""
    id_ = parse_submission_id(text)
    if id_ is None:
        raise not_found()
    return id_


def not_found() -> ProblemError:
    return ProblemError(404, "there is no such submission")


def json_reply(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return response_of(reply.json_reply(content, status, headers))


def response_of(answer: reply.Reply) -> Response:
    return Response(answer.body, status=answer.status, headers=dict(answer.headers))
