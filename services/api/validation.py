"""The validation of a submission: from parsed JSON to the row to be stored."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from pydantic import ValidationError

from services.api.models import NewSubmission, fingerprint, is_plainly_private
from services.api.problem import Fault, ProblemError, faults_of
from services.api.row import Row
from tidings.contract.ids import new_submission_id
from tidings.contract.targets import Target


class Validator:
    """Holds the targets and the operator's rules."""

    def __init__(
        self,
        targets: Mapping[str, Target],
        *,
        webhooks: bool,
        webhooks_public_only: bool,
        input_bytes_max: int,
    ) -> None:
        self._targets = targets
        self._webhooks = webhooks
        self._webhooks_public_only = webhooks_public_only
        self._input_bytes_max = input_bytes_max

    def row(self, tenant: str, content: Any, prefix: str = "", *, key: str | None, trace: str | None) -> Row:
        """Build the row of a submission. Raises `ProblemError` 422; `prefix` is its position in the body."""
        try:
            submission = NewSubmission.model_validate(content)
        except ValidationError as error:
            raise ProblemError(422, "the submission is not valid", *faults_of(error, prefix)) from None
        if submission.target not in self._targets:
            why = f"there is no target {submission.target!r}; the targets are: {', '.join(sorted(self._targets))}"
            raise ProblemError(422, "the target is not known", Fault(f"{prefix}target", why))
        if submission.webhook is not None:
            self._check_webhook(submission.webhook, prefix)
        body = orjson.dumps(submission.input)
        if len(body) > self._input_bytes_max:  # an item of a batch, whose body may be larger
            why = f"is larger than {self._input_bytes_max} bytes"
            raise ProblemError(422, "the input is too large", Fault(f"{prefix}input", why))
        created_at = datetime.now(UTC)
        return Row(
            id=new_submission_id(),
            tenant=tenant,
            target=submission.target,
            body=body,
            content_type="application/json",
            metadata=None if submission.metadata is None else orjson.dumps(submission.metadata).decode(),
            channel=submission.channel,
            webhook=submission.webhook,
            idempotency_key=key,
            fingerprint=b"" if key is None else fingerprint(submission),
            traceparent=trace,
            created_at=created_at,
            expires_at=self._expires_at(submission, created_at, prefix),
        )

    def _check_webhook(self, url: str, prefix: str) -> None:
        if not self._webhooks:
            why = "webhooks are disabled; the operator enables them by TIDINGS_WEBHOOK_SECRET and TIDINGS_WEBHOOKS=on"
            raise ProblemError(422, "webhooks are disabled", Fault(f"{prefix}webhook", why))
        if self._webhooks_public_only and is_plainly_private(url):
            why = "must be a public address; the operator permits others by TIDINGS_WEBHOOK_ADDRESSES=any"
            raise ProblemError(422, "the webhook is not at a public address", Fault(f"{prefix}webhook", why))

    def _expires_at(self, submission: NewSubmission, created_at: datetime, prefix: str) -> datetime | None:
        target = self._targets[submission.target]
        seconds = target.expires_in_seconds if submission.expires_in is None else submission.expires_in
        if seconds is None:
            return None
        if target.expires_in_seconds_max is not None and seconds > target.expires_in_seconds_max:
            why = f"must be at most {target.expires_in_seconds_max}, the maximum of the target"
            raise ProblemError(422, "expires_in is too long", Fault(f"{prefix}expires_in", why))
        return created_at + timedelta(seconds=seconds)
