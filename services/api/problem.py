"""Errors as RFC 9457 problem documents, with the invalid field and the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from logging import Logger
from typing import Any

from psycopg import OperationalError
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from services.api.reply import Reply, encoded

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


def problem(
    status: int, detail: str, faults: tuple[Fault, ...] = (), headers: Mapping[str, str] | None = None
) -> Reply:
    """Build the problem document for a fault."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if faults:
        content["errors"] = [{"field": fault.field, "why": fault.why} for fault in faults]
    return encoded(MEDIA_TYPE, content, status, headers)


def error_reply(error: Exception, log: Logger) -> Reply:
    """Build the reply for any error. Unexpected errors are logged; the client receives a generic 500."""
    match error:
        case ProblemError():
            return problem(error.status, error.detail, error.faults, error.headers)
        case OperationalError():
            # The connection may also have been lost after COMMIT was sent: the row may then exist.
            log.warning("the database does not respond: %s", type(error).__name__)
            detail = "the database does not respond; a repeat with the same Idempotency-Key is safe"
            return problem(503, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
        case HTTPException():
            methods = error.valid_methods if isinstance(error, MethodNotAllowed) else None
            headers = {"Allow": ", ".join(sorted(methods))} if methods else {}
            return problem(error.code or 500, error.description or "", headers=headers)
        case _:
            log.error("request failed: %s", type(error).__name__, exc_info=error)
            return problem(500, "an internal error; the log has its cause")
