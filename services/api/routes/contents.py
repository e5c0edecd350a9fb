"""Erases the content of a submission: its input and its answer. The row and its outcome remain."""

from __future__ import annotations

from flask import Flask, Response

from services.api.authentication import access
from services.api.dependencies import Dependencies
from services.api.problem import ProblemError
from services.api.routes.reply import id_of, not_found
from services.api.routes.submissions import shown_response


def add_contents(app: Flask, dependencies: Dependencies) -> None:
    @app.delete("/v1/submissions/<text>/content")
    @access("api_key")
    def remove_content(text: str) -> Response:
        tenant, id_ = dependencies.authentication.tenant(), id_of(text)
        match dependencies.store.remove_content(tenant, id_):
            case "unknown":
                raise not_found()
            case "open":
                raise ProblemError(409, "the submission has not ended; cancel it first")
        return shown_response(dependencies, tenant, id_)
