"""What a callback of the relay means for a submission: an attempt, an end, or both. Pure.

The relay calls back after every attempt, so a failure ends nothing unless it says so (`willRetry` false, a failure
callback, the last retry) or the target counts it as final.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from services.api.models import JSON_DEPTH_MAX, depth
from services.api.problem import ProblemError, faults_of
from tidings.targets import REASON_CHARACTERS_MAX, Failed, Succeeded, Target, classify

# What a completion event may carry along; larger answers are fetched.
OUTPUT_BYTES_MAX = 16 * 1024
# Far beyond any relay's; what Postgres's integer holds is less than what JSON does.
RETRIED_MAX = 1_000_000
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)
# A target that was taken from the file while its submissions were under way: any 2xx is a success.
_GONE = Target(name="gone", url="https://gone.invalid", error_field=None, retries=0, timeout_seconds=1)


def _status(status: int) -> int:
    if 0 < status < 100:
        raise ValueError("must be 0, for no answer, or from 100 to 599")
    return status


class Callback(BaseModel):
    """The relay's JSON. Source: the vendor's documentation of callbacks; the last four fields are our relay's own."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    status: Annotated[int, Field(ge=0, le=599), AfterValidator(_status)]
    header: dict[str, list[str]] = {}
    body: str = ""
    retried: int = Field(0, ge=0, lt=RETRIED_MAX)
    max_retries: int | None = Field(None, alias="maxRetries", ge=0)
    source_message_id: str = Field(alias="sourceMessageId", max_length=200, pattern=r"^[^\x00]*$")
    dlq_id: str | None = Field(None, alias="dlqId")
    will_retry: bool | None = Field(None, alias="willRetry")
    next_retry_at: int | None = Field(None, alias="nextRetryAt")
    started_at: int | None = Field(None, alias="startedAt")
    ended_at: int | None = Field(None, alias="endedAt")
    error: str | None = None


@dataclass(frozen=True)
class Attempt:
    """A row of `attempts`."""

    number: int
    status_code: int | None
    error: str | None
    retry_at: datetime | None
    started_at: datetime | None
    ended_at: datetime
    message_id: str


@dataclass(frozen=True)
class Result:
    """A row of `results`."""

    outcome: Literal["succeeded", "failed"]
    reason: str | None
    status_code: int | None
    content_type: str | None
    body: bytes | None
    body_size: int | None
    body_sha256: str | None
    output: Any


def read_callback(raw: bytes) -> tuple[Callback, bytes]:
    """The callback and the provider's answer in it. Raises `ProblemError` 400."""
    try:
        callback = Callback.model_validate(orjson.loads(raw))
        return callback, base64.b64decode(callback.body, validate=True)
    except ValidationError as error:
        raise ProblemError(400, "not a callback of a relay", *faults_of(error)) from None
    except (orjson.JSONDecodeError, binascii.Error) as error:
        raise ProblemError(400, f"not a callback of a relay: {type(error).__name__}") from None


def decide(
    callback: Callback, answer: bytes, target: Target | None, now: datetime
) -> tuple[Attempt | None, Result | None]:
    """What is to be stored. Without a `target`, as it was taken from the file, any 2xx is a success."""
    judged = classify(target or _GONE, callback.status, answer)
    if isinstance(judged, Failed) and callback.status == 0 and callback.error:
        judged = Failed(callback.error[:REASON_CHARACTERS_MAX], final=judged.final)
    ended = isinstance(judged, Succeeded) or judged.final or not _will_retry(callback)
    return _attempt(callback, judged, ended=ended, now=now), _result(callback, answer, judged) if ended else None


def _will_retry(callback: Callback) -> bool:
    if callback.dlq_id is not None:
        return False
    if callback.will_retry is not None:
        return callback.will_retry
    # A relay without our extension retries all but a 2xx, until its retries are used up.
    return not 200 <= callback.status <= 299 and callback.retried < (callback.max_retries or 0)


def _attempt(callback: Callback, judged: Succeeded | Failed, *, ended: bool, now: datetime) -> Attempt | None:
    # A failure callback tells again of the last attempt; one for a message that was never sent tells of none.
    if callback.dlq_id is not None and callback.started_at is None:
        return None
    return Attempt(
        number=callback.retried + 1,
        status_code=callback.status or None,
        error=_text(judged.reason) if isinstance(judged, Failed) else None,
        retry_at=None if ended else _moment(callback.next_retry_at),
        started_at=_moment(callback.started_at),
        ended_at=_moment(callback.ended_at) or now,
        message_id=callback.source_message_id,
    )


def _result(callback: Callback, answer: bytes, judged: Succeeded | Failed) -> Result:
    answered = callback.status != 0
    content_type = next((v[0] for name, v in callback.header.items() if name.lower() == "content-type" and v), None)
    failed = isinstance(judged, Failed)
    return Result(
        outcome="failed" if failed else "succeeded",
        reason=_text(judged.reason) if isinstance(judged, Failed) else None,
        status_code=callback.status or None,
        content_type=_text(content_type)[:255] if answered and content_type else None,
        body=answer if answered else None,
        body_size=len(answer) if answered else None,
        body_sha256=hashlib.sha256(answer).hexdigest() if answered else None,
        output=_output(answer),
    )


def _output(answer: bytes) -> Any:
    """The answer as JSON when it is small, no deeper than readers can follow, and Postgres can hold it: jsonb knows no NUL
    in text."""
    if not answer or len(answer) > OUTPUT_BYTES_MAX or b"\\u0000" in answer:
        return None
    try:
        output = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    return output if depth(output) <= JSON_DEPTH_MAX else None


def _text(text: str) -> str:
    """What Postgres and UTF-8 can hold: no NUL, and no half of a surrogate pair, as a text that was cut may end in."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def _moment(milliseconds: int | None) -> datetime | None:
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
    except (OverflowError, ValueError, OSError):
        return _NEVER
