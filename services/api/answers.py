"""The JSON of the api's answers as pydantic models: schemas of the OpenAPI description. No view builds its answer with
them; services/api/presentation.py does.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue

EXAMPLE_ID = "01920000-0000-7000-8000-000000000001"
_AN_ID = "a UUID, version 7"
_A_TIME = "a time as in RFC 3339, in UTC"
_AS_SUBMITTED = "as submitted"


class Links(BaseModel):
    """The paths of a submission at the api."""

    self: str = Field(description="the submission")
    result: str | None = Field(None, description="the provider's answer; absent when there is none")
    images: list[str] | None = Field(None, description="each image of output; absent when there is none")


class Accepted(BaseModel):
    """A submission that was stored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"id": EXAMPLE_ID, "status": "queued", "target": "demo-images", "created_at": "2026-01-01T00:00:00.000000Z",
                 "links": {"self": f"/v1/submissions/{EXAMPLE_ID}"}}
            ]
        }
    )  # fmt: skip
    id: str = Field(description=_AN_ID)
    status: str = Field(description="queued")
    target: str
    created_at: str = Field(description=_A_TIME)
    links: Links


class AcceptedBatch(BaseModel):
    """The submissions of a batch that was stored."""

    submissions: list[Accepted] = Field(description="in the order of the request")


class AttemptShown(BaseModel):
    """One call to the provider."""

    number: int = Field(description="from 1")
    status_code: int | None = Field(description="of the answer; null when there was none, or it is above 599")
    error: str | None = Field(description="why the attempt failed; null when it did not")
    fate: str | None = Field(
        description="without an answer: not sent, or unknown when the call may have been carried out"
    )
    retry_at: str | None = Field(description="when the next attempt is due; null when none follows")
    started_at: str | None = Field(description=_A_TIME)
    ended_at: str | None = Field(description="null: the attempt is in progress, and nothing but its start is known")


class SubmissionShown(BaseModel):
    """A submission with its derived status."""

    id: str = Field(description=_AN_ID)
    status: str = Field(description="queued, running, retrying, or the outcome")
    running_since: str | None = Field(description="when the attempt in progress began; null when none is known to be")
    target: str
    channel: str | None = Field(description=_AS_SUBMITTED)
    metadata: dict[str, JsonValue] | None = Field(description=_AS_SUBMITTED)
    outcome: str | None = Field(description="succeeded, failed, cancelled, expired; null until then")
    reason: str | None = Field(description="why the outcome is not succeeded")
    status_code: int | None = Field(description="of the answer; null when there is none, or it is above 599")
    output: JsonValue = Field(description="the answer when it is JSON of up to 16 KiB")
    result_size: int | None = Field(description="bytes of the answer")
    attempts: list[AttemptShown] = Field(description="in their order")
    created_at: str = Field(description=_A_TIME)
    expires_at: str | None = Field(description="when it ends as expired; null: it may take as long as it takes")
    completed_at: str | None = Field(description="when the outcome was stored; null until then")
    content_removed_at: str | None = Field(description="when input and answer were erased; null: they were not")
    links: Links


class ListedSubmission(BaseModel):
    """A submission of a list; its fields are those of SubmissionShown."""

    id: str
    status: str
    running_since: str | None
    target: str
    channel: str | None
    created_at: str
    completed_at: str | None
    links: Links


class Page(BaseModel):
    """A page of a list."""

    submissions: list[ListedSubmission] = Field(description="the newest first")
    cursor: str | None = Field(description="for the next page; null at the end")


class ProblemFault(BaseModel):
    """One fault of a request."""

    field: str = Field(description="a path such as input.prompt, or the name of a header or parameter")
    why: str = Field(description="the reason")


class Problem(BaseModel):
    """A problem document of RFC 9457."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"type": "about:blank", "title": "Unprocessable Entity", "status": 422,
                 "detail": "the target is not known",
                 "errors": [{"field": "target", "why": "there is no target 'x'"}]}
            ]
        }
    )  # fmt: skip
    type: str = Field(description="always about:blank")
    title: str = Field(description="the phrase of the status")
    status: int = Field(description="the status of the response")
    detail: str = Field(description="what is wrong with this request, for people")
    errors: list[ProblemFault] | None = Field(None, description="absent when no field is at fault")


class ImageState(BaseModel):
    """The article's answer to "is my image ready?"."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "completed", "imageUrl": "https://x/1.png"}]})
    status: str = Field(description="notFound, pending, unableToGenerate or completed")
    # The article's spelling.
    imageUrl: str | None = Field(None, description="when completed")  # noqa: N815
    reason: str | None = Field(None, description="when unableToGenerate")
