"""Decides what a callback of the relay means for a submission: an attempt, an outcome, or both. Pure.

The relay calls back after every attempt. A failure therefore ends the submission only if the callback says so
(`willRetry` is false, it is a failure callback, or it reports the last retry) or if the target counts it as final.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from services.api.coding import decoded, normal_coding
from services.api.models import JSON_DEPTH_MAX, depth, writes_nul
from services.api.problem import ProblemError, faults_of
from tidings.contract.targets import REASON_CHARACTERS_MAX, Failed, Succeeded, Target, classify

# The size up to which a completion event carries the result; clients fetch a larger one.
OUTPUT_BYTES_MAX = 16 * 1024
# The size up to which a result with a content coding is decoded. A larger one is stored unchanged and classified by its
# status.
DECODED_BYTES_MAX = 64 * 1024 * 1024
# Far above the number of any relay. The limit exists because Postgres's integer is smaller than JSON's.
RETRIED_MAX = 1_000_000
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)
# The target of submissions whose target was removed from the file while they were in progress: any 2xx is a success.
_GONE = Target(name="gone", url="https://gone.invalid", error_field=None, retries=0, timeout_seconds=1)


def _status(status: int) -> int:
    if 0 < status < 100:
        raise ValueError("must be 0, for no answer, or from 100 to 999")
    return status


class Callback(BaseModel):
    """The JSON of a callback. Source: the vendor's documentation of callbacks; the fields from `willRetry` on are
    extensions of our relay.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    status: Annotated[int, Field(ge=0, le=999), AfterValidator(_status)] = Field(
        description="of the provider's answer; 0: there was none"
    )
    header: dict[str, list[str]] = Field({}, description="headers of the answer")
    body: str = Field("", description="the answer in base64")
    retried: int = Field(0, ge=0, lt=RETRIED_MAX, description="the attempt's number, from 0")
    max_retries: int | None = Field(None, alias="maxRetries", ge=0, description="retries of the message")
    source_message_id: str = Field(
        alias="sourceMessageId", max_length=200, pattern=r"^[^\x00]*$", description="id of the relay's message"
    )
    dlq_id: str | None = Field(None, alias="dlqId", description="id of the dead letter; only after the last attempt")
    will_retry: bool | None = Field(None, alias="willRetry", description="another attempt follows")
    next_retry_at: int | None = Field(None, alias="nextRetryAt", description="when it does, in Unix milliseconds")
    started_at: int | None = Field(None, alias="startedAt", description="begin of the attempt, in Unix milliseconds")
    ended_at: int | None = Field(None, alias="endedAt", description="end of the attempt, in Unix milliseconds")
    error: str | None = Field(None, description="why there was no answer")
    fate: Literal["not sent", "unknown"] | None = Field(None, description="of a call without an answer")
    body_truncated: bool = Field(False, alias="bodyTruncated", description="`body` is the first part of the answer")
    body_url: str | None = Field(None, alias="bodyUrl", description="where the relay has the whole answer")

    def first(self, name: str) -> str | None:
        """Return the first value of a response header; `name` is in lower case."""
        return next((values[0] for key, values in self.header.items() if key.lower() == name and values), None)

    @property
    def status_code(self) -> int | None:
        """The status for the tables: null without a response, or for a number that is not in RFC 9110, section 15."""
        return self.status if 100 <= self.status <= 599 else None


@dataclass(frozen=True)
class Attempt:
    """A row of `attempts`. `fate` says whether an attempt without a response may have been executed."""

    number: int
    status_code: int | None
    error: str | None
    fate: str | None
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
    content_encoding: str | None
    body: bytes | None
    body_size: int | None
    body_sha256: str | None
    output: Any


def read_callback(raw: bytes) -> tuple[Callback, bytes]:
    """Parse the callback and the provider's response in it. Raises `ProblemError` 400."""
    try:
        callback = Callback.model_validate(orjson.loads(raw))
        return callback, base64.b64decode(callback.body, validate=True)
    except ValidationError as error:
        raise ProblemError(400, "the body is not a callback of the relay", *faults_of(error)) from None
    except ValueError as error:  # not JSON, or a body that is not base64
        raise ProblemError(400, f"the body is not a callback of the relay: {type(error).__name__}") from None


def decide(
    callback: Callback, answer: bytes, target: Target | None, now: datetime
) -> tuple[Attempt | None, Result | None]:
    """Decide what to store. Without a `target`, because it was removed from the file, any 2xx is a success."""
    coding = normal_coding(callback.first("content-encoding"))
    content = decoded(answer, coding, DECODED_BYTES_MAX) or b""
    judged = _judged(callback, content, target or _GONE)
    ended = isinstance(judged, Succeeded) or judged.final or not _will_retry(callback)
    attempt = _attempt(callback, judged, ended=ended, now=now)
    return attempt, _result(callback, answer, content, judged) if ended else None


def _judged(callback: Callback, content: bytes, target: Target) -> Succeeded | Failed:
    judged = classify(target, callback.status, content)
    if isinstance(judged, Succeeded) and callback.body_truncated:
        # A truncated response is never a success. The relay does not retry it, because the provider did respond.
        where = f"; the relay keeps it for a while at {callback.body_url}" if callback.body_url else ""
        return Failed(
            f"the answer is too large to be stored: a callback carries only its first part{where}", final=True
        )
    if isinstance(judged, Failed) and callback.status == 0 and callback.error:
        unknown = "; the provider may have carried the call out" if callback.fate == "unknown" else ""
        return Failed(callback.error[: REASON_CHARACTERS_MAX - len(unknown)] + unknown, final=judged.final)
    return judged


def _will_retry(callback: Callback) -> bool:
    if callback.dlq_id is not None:
        return False
    if callback.will_retry is not None:
        return callback.will_retry
    # A relay without our extension retries every response except a 2xx, until the retries are used up.
    return not 200 <= callback.status <= 299 and callback.retried < (callback.max_retries or 0)


def _attempt(callback: Callback, judged: Succeeded | Failed, *, ended: bool, now: datetime) -> Attempt | None:
    # A failure callback reports the last attempt again; if the message was never sent, it reports none.
    if callback.dlq_id is not None and callback.started_at is None:
        return None
    return Attempt(
        number=callback.retried + 1,
        status_code=callback.status_code,
        error=_text(judged.reason) if isinstance(judged, Failed) else None,
        fate=callback.fate,
        retry_at=None if ended else _moment(callback.next_retry_at),
        started_at=_moment(callback.started_at),
        ended_at=_moment(callback.ended_at) or now,
        message_id=callback.source_message_id,
    )


def _result(callback: Callback, answer: bytes, content: bytes, judged: Succeeded | Failed) -> Result:
    whole = callback.status != 0 and not callback.body_truncated
    content_type, coding = callback.first("content-type"), normal_coding(callback.first("content-encoding"))
    return Result(
        outcome="failed" if isinstance(judged, Failed) else "succeeded",
        reason=_text(judged.reason) if isinstance(judged, Failed) else None,
        status_code=callback.status_code,
        content_type=_header_value(content_type) if whole else None,
        content_encoding=_header_value(coding) if whole else None,
        body=answer if whole else None,
        body_size=len(answer) if whole else None,
        body_sha256=hashlib.sha256(answer).hexdigest() if whole else None,
        output=_output(content) if whole else None,
    )


def _output(answer: bytes) -> Any:
    """Return the response as JSON if it is small, is not nested deeper than consumers can parse, and can be stored by
    Postgres: jsonb rejects NUL in text.
    """
    if not answer or len(answer) > OUTPUT_BYTES_MAX:
        return None
    try:
        output = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    storable = depth(output) <= JSON_DEPTH_MAX and not writes_nul(answer)
    return output if storable else None


def _text(text: str) -> str:
    """Replace what Postgres or UTF-8 cannot store: NUL, and half of a surrogate pair, with which truncated text may
    end.
    """
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def _header_value(text: str | None) -> str | None:
    """Return text that is valid in a header: no control characters, and no longer than a media type needs."""
    return "".join(character for character in _text(text or "") if character.isprintable())[:255] or None


def _moment(milliseconds: int | None) -> datetime | None:
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
    except (OverflowError, ValueError, OSError):
        return _NEVER
