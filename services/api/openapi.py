"""The OpenAPI 3.1 description of the api: pydantic generates the schemas from the models, a table below lists the
paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.json_schema import models_json_schema

from services.api.callback import Callback
from services.api.models import BATCH_MAX, NewSubmission
from services.api.parameters import parameters
from services.api.routes.dispatches import DISPATCH_IDS_MAX
from services.api.starts import ReportedStarts

_ID = "01920000-0000-7000-8000-000000000001"
_EXAMPLE_NEW = {
    "target": "demo-images",
    "input": {"prompt": "a lighthouse"},
    "metadata": {"order": 7},
    "channel": "team-a",
}


class Links(BaseModel):
    self: str
    result: str | None = None
    images: list[str] | None = None


class Accepted(BaseModel):
    """A submission that was stored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"id": _ID, "status": "queued", "target": "demo-images", "created_at": "2026-01-01T00:00:00.000000Z",
                 "links": {"self": f"/v1/submissions/{_ID}"}}
            ]
        }
    )  # fmt: skip
    id: str
    status: str
    target: str
    created_at: str
    links: Links


class AcceptedBatch(BaseModel):
    submissions: list[Accepted]


class AttemptShown(BaseModel):
    """One call to the provider."""

    number: int
    status_code: int | None
    error: str | None
    fate: str | None = Field(description="without an answer: not sent, or unknown if the call may have been executed")
    retry_at: str | None
    started_at: str | None
    ended_at: str | None = Field(description="null: the attempt is in progress")


class SubmissionShown(BaseModel):
    """A submission with its derived status."""

    id: str
    status: str = Field(description="queued, running, retrying, or the outcome")
    running_since: str | None = Field(description="when the attempt in progress started; null if none is known")
    target: str
    channel: str | None
    metadata: dict[str, JsonValue] | None
    outcome: str | None = Field(description="succeeded, failed, cancelled, expired; null until then")
    reason: str | None
    status_code: int | None
    output: JsonValue = Field(description="the answer if it is JSON of up to 16 KiB")
    result_size: int | None = Field(description="the size of the answer in bytes")
    attempts: list[AttemptShown]
    created_at: str
    expires_at: str | None = Field(description="when it ends as expired; null: there is no limit")
    completed_at: str | None
    content_removed_at: str | None = Field(description="when input and answer were erased")
    links: Links


class ListedSubmission(BaseModel):
    id: str
    status: str
    running_since: str | None
    target: str
    channel: str | None
    created_at: str
    completed_at: str | None
    links: Links


class Page(BaseModel):
    submissions: list[ListedSubmission]
    cursor: str | None = Field(description="the cursor of the next page; null if there is none")


class ProblemFault(BaseModel):
    field: str
    why: str


class Problem(BaseModel):
    """RFC 9457."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"type": "about:blank", "title": "Unprocessable Entity", "status": 422,
                 "detail": "the target is not known",
                 "errors": [{"field": "target", "why": "there is no target 'x'"}]}
            ]
        }
    )  # fmt: skip
    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemFault] | None = None


class ImageState(BaseModel):
    """The article's answer to "is my image ready?"."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "completed", "imageUrl": "https://x/1.png"}]})
    status: str = Field(description="notFound, pending, unableToGenerate or completed")
    imageUrl: str | None = None  # noqa: N815  the article's spelling
    reason: str | None = None


class NewBatch(BaseModel):
    """The body of `POST /v1/submissions/batch`: stored whole, or not at all."""

    model_config = ConfigDict(extra="forbid")
    submissions: list[NewSubmission] = Field(min_length=1, max_length=BATCH_MAX)


class DispatchRequest(BaseModel):
    ids: list[UUID] = Field(max_length=DISPATCH_IDS_MAX)


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
    _Route("get", "/v1/submissions/{id}", "Status, attempts, outcome, output", 200, SubmissionShown,
           headers=("If-None-Match",), others=((304, "Unchanged since the ETag of If-None-Match", None),)),
    _Route("delete", "/v1/submissions/{id}", "Cancel", 200, SubmissionShown),
    _Route("delete", "/v1/submissions/{id}/content", "Erase input and answer of an ended submission", 200,
           SubmissionShown),
    _Route("get", "/v1/submissions/{id}/result", "The provider's answer, byte for byte", 200, "*/*"),
    _Route("get", "/v1/submissions/{id}/images/{number}", "An image of the answer, or a redirect to it", 200, "image/*",
           others=((302, "The image is at Location", None),)),
    _Route("get", "/generate-image", "Submit a prompt", 200, "text/plain", query=("prompt",)),
    _Route("post", "/generate-image", "Submit a prompt", 200, "text/plain", query=("prompt",)),
    _Route("get", "/get-image-is-ready", "Is the image ready?", 200, ImageState, query=("submissionId",)),
    _Route("post", "/callbacks/relay", "The relay's callback", 200, "application/json", Callback, "signature",
           ("submission",),
           example={"status": 200, "body": "e30=", "sourceMessageId": "msg_1", "retried": 0, "maxRetries": 3}),
    _Route("post", "/callbacks/relay/starts", "Attempt starts", 200, "application/json", ReportedStarts, "signature"),
    _Route("post", "/image-callback", "The relay's callback", 200, "application/json", Callback, "signature",
           ("submission",)),
    _Route("post", "/internal/dispatches", "Bodies for the dispatcher", 200, "application/json", DispatchRequest,
           "internal", example={"ids": [_ID]}),
    _Route("get", "/healthz", "The process runs", 200, "application/json", guard="public"),
    _Route("get", "/readyz", "Postgres answers, and submissions are committed", 200, "application/json",
           guard="public"),
    _Route("get", "/metrics", "Prometheus text", 200, "text/plain", guard="public"),
    _Route("get", "/openapi.json", "This document", 200, "application/json", guard="public"),
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
