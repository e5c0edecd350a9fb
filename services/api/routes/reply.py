"""Reads a request within its limits and builds JSON responses."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Request, Response

from services.api.problem import ProblemError
from tidings.contract.ids import SubmissionId, parse_submission_id


def body_of(asked: Request, bytes_max: int) -> bytes:
    """Return the body. Raises `ProblemError` 413."""
    if (asked.content_length or 0) > bytes_max:
        raise ProblemError(413, f"the body is larger than {bytes_max} bytes")
    body = asked.get_data(cache=False)
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
    return Response(orjson.dumps(content), status=status, headers=headers, content_type="application/json")
