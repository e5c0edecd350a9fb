"""Errors as RFC 9457 problem documents, with the invalid field and the reason."""

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

# A database that restarts is usually available again after this time.
RETRY_AFTER_SECONDS = 5
MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Fault:
    """One fault. `field` is a path such as `input.prompt`, or the name of a header or parameter."""

    field: str
    why: str


class ProblemError(Exception):
    """An error that is answered with `status` and a problem document; nothing was stored."""

    def __init__(self, status: int, detail: str, *faults: Fault, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.faults = faults
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def faults_of(error: ValidationError, prefix: str = "") -> list[Fault]:
    """Convert pydantic's errors to faults. Values are omitted, because they may be anything."""
    found = []
    for fault in error.errors(include_input=False, include_url=False):
        field = ".".join(str(part) for part in fault["loc"]) or "body"
        found.append(Fault(f"{prefix}{field}", fault["msg"]))
    return found


def problem(status: int, detail: str, faults: tuple[Fault, ...] = ()) -> Response:
    """Build the response for a fault."""
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
    """Build the response for any error. Unexpected errors are logged; the client receives a generic 500."""
    match error:
        case ProblemError():
            response = problem(error.status, error.detail, error.faults)
            response.headers.extend(error.headers)
            return response
        case OperationalError():
            # The connection may also have been lost after COMMIT was sent: the row may then exist.
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
    """Register handlers that answer every error of `app` with a problem document."""

    @app.errorhandler(Exception)
    def on_error(error: Exception) -> Response:
        return error_response(error, app.logger)
