"""The starts of attempts that the relay reports, and the check that the dispatcher requested them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.api.callback import RETRIED_MAX
from services.api.problem import ProblemError, faults_of
from tidings.contract.ids import SubmissionId, parse_submission_id

# The number that the relay puts into one request, each of at most about 3,200 bytes.
STARTS_MAX = 500
STARTS_BYTES_MAX = 2 * 1024 * 1024
# The year 9999, the last one that `datetime` supports.
_MILLISECONDS_MAX = 253_370_764_800_000

# Returns whether a token belongs to a submission.
IsToken = Callable[[str, str], bool]


class ReportedStart(BaseModel):
    """One attempt. The sender sets `label` and `data`, and any client of the relay can choose them; the relay sets the
    other fields.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    label: str | None = Field(None, description="the submission's id")
    data: str = Field("", description="the token that the dispatcher made for the submission")
    retried: int = Field(ge=0, lt=RETRIED_MAX, description="the attempt's number, from 0")
    started_at: int = Field(alias="startedAt", ge=0, le=_MILLISECONDS_MAX, description="Unix milliseconds")


class ReportedStarts(BaseModel):
    """The body of `POST /callbacks/relay/starts`."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    starts: list[ReportedStart] = Field(max_length=STARTS_MAX)


@dataclass(frozen=True)
class Start:
    """A row of `attempt_starts`; `number` starts at 1."""

    submission_id: SubmissionId
    number: int
    started_at: datetime


def read_starts(raw: bytes) -> ReportedStarts:
    """Parse the starts. Raises `ProblemError` 400."""
    try:
        return ReportedStarts.model_validate(orjson.loads(raw))
    except ValidationError as error:
        raise ProblemError(400, "the body is not a report of starts", *faults_of(error)) from None
    except ValueError as error:  # not JSON
        raise ProblemError(400, f"the body is not a report of starts: {type(error).__name__}") from None


def authentic_starts(report: ReportedStarts, is_token: IsToken) -> Sequence[Start]:
    """Return the starts that the dispatcher requested. The others are skipped and not refused: one request carries the
    starts of every sender that named this address, and an invalid start must not discard the others.
    """
    found = [_is_authentic(start, is_token) for start in report.starts]
    return [start for start in found if start is not None]


def _is_authentic(start: ReportedStart, is_token: IsToken) -> Start | None:
    id_ = parse_submission_id(start.label or "")
    if id_ is None or not is_token(start.data, str(id_)):
        return None
    return Start(id_, start.retried + 1, datetime.fromtimestamp(start.started_at / 1000, tz=UTC))
