"""The OpenAPI 3.1 description of the api: pydantic generates the schemas from the models, a table below lists the
paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from services.api.answers import (
    EXAMPLE_ID,
    Accepted,
    AcceptedBatch,
    ImageState,
    Page,
    Problem,
    SubmissionShown,
)
from services.api.callback import Callback
from services.api.models import BATCH_MAX, NewSubmission
from services.api.parameters import parameters
from services.api.routes.dispatches import DISPATCH_IDS_MAX
from services.api.starts import ReportedStarts

_EXAMPLE_NEW = {
    "target": "demo-images",
    "input": {"prompt": "a lighthouse"},
    "metadata": {"order": 7},
    "channel": "team-a",
}


class NewBatch(BaseModel):
    """The body of `POST /v1/submissions/batch`: stored whole, or not at all."""

    model_config = ConfigDict(extra="forbid")
    submissions: list[NewSubmission] = Field(min_length=1, max_length=BATCH_MAX)


class DispatchRequest(BaseModel):
    """The body of `POST /internal/dispatches`."""

    ids: list[UUID] = Field(max_length=DISPATCH_IDS_MAX, description="of submissions")


@dataclass(frozen=True)
class _Route:
    method: str
    path: str
    summary: str
    status: int
    answer: type[BaseModel] | str | None
    body: type[BaseModel] | None = None
    guard: str = "api_key"
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    example: Any = None
    # Other responses that are not errors, by status: a description and a schema.
    others: tuple[tuple[int, str, type[BaseModel] | None], ...] = ()


_LIST_QUERY = ("status", "target", "since", "cursor", "limit")
ROUTES = (
    _Route("post", "/v1/submissions", "Submit a slow call", 202, Accepted, NewSubmission,
           headers=("Idempotency-Key", "traceparent"), example=_EXAMPLE_NEW,
           others=((200, "A repeat: the submission that was created with the Idempotency-Key", SubmissionShown),)),
    _Route("post", "/v1/submissions/batch", "Submit up to 1,000, all or none", 202, AcceptedBatch, NewBatch,
           headers=("Idempotency-Key", "traceparent"), example={"submissions": [_EXAMPLE_NEW]}),
    _Route("get", "/v1/submissions", "List, newest first", 200, Page, query=_LIST_QUERY),
    _Route("get", "/v1/submissions/{id}", "Show status, attempts, outcome and output", 200, SubmissionShown,
           headers=("If-None-Match",), others=((304, "Unchanged since the ETag of If-None-Match", None),)),
    _Route("delete", "/v1/submissions/{id}", "Cancel", 200, SubmissionShown),
    _Route("delete", "/v1/submissions/{id}/content", "Erase input and answer of an ended submission", 200,
           SubmissionShown),
    _Route("get", "/v1/submissions/{id}/result", "The provider's answer, byte for byte", 200, "*/*"),
    _Route("get", "/v1/submissions/{id}/images/{number}", "An image of the answer, or a redirect to it", 200, "image/*",
           others=((302, "The image is at Location", None),)),
    _Route("get", "/generate-image", "Submit a prompt", 200, "text/plain", query=("prompt",)),
    _Route("post", "/generate-image", "Submit a prompt", 200, "text/plain", query=("prompt",)),
    _Route("get", "/get-image-is-ready", "The state of the image of a submission", 200, ImageState, query=("submissionId",)),
    _Route("post", "/callbacks/relay", "The end of an attempt, from the relay", 200, "application/json", Callback, "signature",
           ("submission",),
           example={"status": 200, "body": "e30=", "sourceMessageId": "msg_1", "retried": 0, "maxRetries": 3}),
    _Route("post", "/callbacks/relay/starts", "The begin of attempts, from the relay", 200, "application/json", ReportedStarts, "signature"),
    _Route("post", "/image-callback", "The end of an attempt, from the relay", 200, "application/json", Callback, "signature",
           ("submission",)),
    _Route("post", "/internal/dispatches", "Inputs of submissions, for the dispatcher", 200, "application/json", DispatchRequest,
           "internal", example={"ids": [EXAMPLE_ID]}),
    _Route("get", "/healthz", "The process runs", 200, "application/json", guard="public"),
    _Route("get", "/readyz", "Postgres answers, and submissions are committed", 200, "application/json",
           guard="public", others=((503, "Not ready: `faults` names what is missing", None),)),
    _Route("get", "/metrics", "Figures for Prometheus", 200, "text/plain", guard="public"),
    _Route("get", "/openapi.json", "The OpenAPI description", 200, "application/json", guard="public"),
)  # fmt: skip


def document(version: str) -> dict[str, Any]:
    """Build the whole document."""
    models = {model for route in ROUTES for model in (route.body, route.answer) if isinstance(model, type)}
    models |= {Problem, SubmissionShown}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in ordered], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = _operation(route)
    bearer = {"type": "http", "scheme": "bearer"}
    signature = {"type": "apiKey", "in": "header", "name": "Upstash-Signature"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tidings", "version": version, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"api_key": bearer, "internal": bearer, "signature": signature},
        },
    }


def _operation(route: _Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method}{route.path}".replace("/", "_")
        .replace("{", "")
        .replace("}", "")
        .replace("-", "_"),
        "parameters": parameters(route.method, route.path, route.query, route.headers),
        "security": [] if route.guard == "public" else [{route.guard: []}],
        "responses": {
            str(route.status): {"description": route.summary, "content": _content(route.answer)},
            **{str(s): {"description": words, "content": _content(answer)} for s, words, answer in route.others},
            "default": {
                "description": "A fault",
                "content": {"application/problem+json": {"schema": _reference(Problem)}},
            },
        },
    }
    if route.body is not None:
        content: dict[str, Any] = {"schema": _reference(route.body)}
        if route.example is not None:
            content["example"] = route.example
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    return operation


def _content(answer: type[BaseModel] | str | None) -> dict[str, Any]:
    if isinstance(answer, str):
        return {answer: {}}
    return {} if answer is None else {"application/json": {"schema": _reference(answer)}}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
