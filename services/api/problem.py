"""Errors as RFC 9457 problem documents, with the field and why."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from logging import Logger
from typing import Any

import orjson
from flask import Flask, Response
from psycopg import OperationalError
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException, MethodNotAllowed

# A database that restarts is back about then.
RETRY_AFTER_SECONDS = 5
MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: `field` is a path like `input.prompt` or the name of a header or parameter."""

    field: str
    why: str


class ProblemError(Exception):
    """To be answered with `status` and a problem document; nothing was stored."""

    def __init__(self, status: int, detail: str, *faults: Fault, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.faults = faults
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def faults_of(error: ValidationError, prefix: str = "") -> list[Fault]:
    """Pydantic's findings as ours; values are left out, as they may be anything."""
    found = []
    for fault in error.errors(include_input=False, include_url=False):
        field = ".".join(str(part) for part in fault["loc"]) or "body"
        found.append(Fault(f"{prefix}{field}", fault["msg"]))
    return found


def problem(status: int, detail: str, faults: tuple[Fault, ...] = ()) -> Response:
    """The response for a fault."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if faults:
        content["errors"] = [{"field": fault.field, "why": fault.why} for fault in faults]
    return Response(orjson.dumps(content), status=status, content_type=MEDIA_TYPE)


def error_response(error: Exception, log: Logger) -> Response:
    """The response of any error; what is not ours to explain is logged and told without a trace of the inside."""
    match error:
        case ProblemError():
            response = problem(error.status, error.detail, error.faults)
            response.headers.extend(error.headers)
            return response
        case OperationalError():
            # Also a connection that was lost after COMMIT was sent: then the row may be there.
            log.warning("the database does not answer: %s", type(error).__name__)
            response = problem(503, "the database does not answer; a repeat with the same Idempotency-Key is safe")
            response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
            return response
        case HTTPException():
            response = problem(error.code or 500, error.description or "")
            if isinstance(error, MethodNotAllowed) and error.valid_methods:
                response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
            return response
        case _:
            log.error("request failed: %s", type(error).__name__, exc_info=error)
            return problem(500, "an internal error; it is in the log")


def register_errors(app: Flask) -> None:
    """Have every error of `app` answered as a problem document."""

    @app.errorhandler(Exception)
    def on_error(error: Exception) -> Response:
        return error_response(error, app.logger)
