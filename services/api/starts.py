"""What the relay tells of attempts that begin, and which of it the dispatcher asked for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.api.callback import RETRIED_MAX
from services.api.problem import ProblemError, faults_of
from tidings.contract.ids import SubmissionId, parse_submission_id

# As many as the relay puts into one request, each of at most some 3,200 bytes.
STARTS_MAX = 500
STARTS_BYTES_MAX = 2 * 1024 * 1024
# The year 9999, the last one that `datetime` has.
_MILLISECONDS_MAX = 253_370_764_800_000

# Whether a token is that of a submission.
IsToken = Callable[[str, str], bool]


class ToldStart(BaseModel):
    """One attempt. `label` and `data` are the sender's, and whoever may publish at the relay chooses them; the rest is the
    relay's own.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    label: str | None = Field(None, description="the submission's id")
    data: str = Field("", description="the token that the dispatcher made for the submission")
    retried: int = Field(ge=0, lt=RETRIED_MAX, description="the attempt's number, from 0")
    started_at: int = Field(alias="startedAt", ge=0, le=_MILLISECONDS_MAX, description="Unix milliseconds")


class ToldStarts(BaseModel):
    """The body of `POST /callbacks/relay/starts`."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    starts: list[ToldStart] = Field(max_length=STARTS_MAX)


@dataclass(frozen=True)
class Start:
    """A row of `attempt_starts`; `number` from 1."""

    submission_id: SubmissionId
    number: int
    started_at: datetime


def read_starts(raw: bytes) -> ToldStarts:
    """Raises `ProblemError` 400."""
    try:
        return ToldStarts.model_validate(orjson.loads(raw))
    except ValidationError as error:
        raise ProblemError(400, "not starts of a relay", *faults_of(error)) from None
    except ValueError as error:  # no JSON
        raise ProblemError(400, f"not starts of a relay: {type(error).__name__}") from None


def proven(told: ToldStarts, is_token: IsToken) -> Sequence[Start]:
    """Those that the dispatcher asked for. The others are left out and not refused: one request has the starts of all
    who named this address, and those of one must not cost the others theirs.
    """
    found = [_proven(start, is_token) for start in told.starts]
    return [start for start in found if start is not None]


def _proven(start: ToldStart, is_token: IsToken) -> Start | None:
    id_ = parse_submission_id(start.label or "")
    if id_ is None or not is_token(start.data, str(id_)):
        return None
    return Start(id_, start.retried + 1, datetime.fromtimestamp(start.started_at / 1000, tz=UTC))
