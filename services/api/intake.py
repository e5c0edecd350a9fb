"""The intake of submissions: from a validated body to a committed row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from prometheus_client import Counter
from pydantic import ValidationError

from services.api.committer import Committer
from services.api.models import NewBatch, NewSubmission, batch_fingerprint, fingerprint, is_plainly_private
from services.api.presentation import RETRY_AFTER_SECONDS, links
from services.api.problem import Fault, ProblemError, faults_of
from services.api.row import Row, Stored
from services.api.store import Store
from tidings.contract.completion import timestamp
from tidings.contract.ids import batch_ids, new_batch_id, new_submission_id
from tidings.contract.targets import Target


class Intake:
    def __init__(
        self,
        store: Store,
        committer: Committer,
        targets: Mapping[str, Target],
        *,
        webhooks: bool,
        webhooks_public_only: bool,
        input_bytes_max: int,
        submitted: Counter,
    ) -> None:
        self._store = store
        self._committer = committer
        self._targets = targets
        self._webhooks = webhooks
        self._webhooks_public_only = webhooks_public_only
        self._input_bytes_max = input_bytes_max
        # One counter per target: the targets are known and few, and looking up a label takes longer than counting.
        self._submitted = {target: submitted.labels(target) for target in targets}

    def one(self, tenant: str, content: Any, *, key: str | None, trace: str | None) -> tuple[Row, Stored]:
        """Store one submission. Raises `ProblemError`."""
        row = self.row(tenant, content, key=key, trace=trace)
        stored = self._committer.store(row)
        self._check(row, stored)
        return row, stored

    async def one_async(self, tenant: str, content: Any, *, trace: str | None) -> Row:
        """`one` for the event loop, without an idempotency key. Raises `ProblemError`."""
        row = self.row(tenant, content, key=None, trace=trace)
        self._check(row, await self._committer.store_async(row))
        return row

    def _check(self, row: Row, stored: Stored) -> None:
        if not stored.same_input:
            why = "it was used with another input"
            raise ProblemError(422, "the Idempotency-Key belongs to another submission", Fault("Idempotency-Key", why))
        if not stored.repeated:
            self._submitted[row.target].inc()

    def many(self, tenant: str, content: Any, *, key: str | None, trace: str | None) -> list[Row]:
        """Store all submissions of a batch in one transaction, or none. A repeat with the same key returns the rows as
        they were stored.

        Raises `ProblemError` naming the index of each invalid item.
        """
        try:
            batch = NewBatch.model_validate(content)
        except ValidationError as error:
            raise ProblemError(422, "the batch is not valid", *faults_of(error)) from None
        rows: list[Row] = []
        faults: list[Fault] = []
        for index, item in enumerate(batch.submissions):
            try:
                rows.append(self.row(tenant, item, f"submissions.{index}.", key=None, trace=trace))
            except ProblemError as error:
                faults += error.faults
        if faults:
            raise ProblemError(422, "nothing was stored: some submissions are not valid", *faults[:100])
        ids = batch_ids(new_batch_id(), len(rows))
        rows = [replace(row, id=id_) for row, id_ in zip(rows, ids, strict=True)]
        if key is not None:
            rows[0] = replace(rows[0], idempotency_key=key, fingerprint=batch_fingerprint(batch.submissions))
        stored = self._store.insert(rows, batch=True)
        if not stored[0].same_input:
            why = "it was used with another input"
            raise ProblemError(422, "the Idempotency-Key belongs to another submission", Fault("Idempotency-Key", why))
        if not stored[0].repeated:
            for row in rows:
                self._submitted[row.target].inc()
        return [replace(row, id=one.id) for row, one in zip(rows, stored, strict=True)]

    def row(self, tenant: str, content: Any, prefix: str = "", *, key: str | None, trace: str | None) -> Row:
        """Build the row of a submission. Raises `ProblemError` 422; `prefix` is its position in the body."""
        try:
            asked = NewSubmission.model_validate(content)
        except ValidationError as error:
            raise ProblemError(422, "the submission is not valid", *faults_of(error, prefix)) from None
        if asked.target not in self._targets:
            why = f"there is no target {asked.target!r}; there are: {', '.join(sorted(self._targets))}"
            raise ProblemError(422, "the target is not known", Fault(f"{prefix}target", why))
        if asked.webhook is not None:
            self._check_webhook(asked.webhook, prefix)
        body = orjson.dumps(asked.input)
        if len(body) > self._input_bytes_max:  # an item of a batch, whose body may be larger
            why = f"is larger than {self._input_bytes_max} bytes"
            raise ProblemError(422, "the input is too large", Fault(f"{prefix}input", why))
        created_at = datetime.now(UTC)
        return Row(
            id=new_submission_id(),
            tenant=tenant,
            target=asked.target,
            body=body,
            content_type="application/json",
            metadata=None if asked.metadata is None else orjson.dumps(asked.metadata).decode(),
            channel=asked.channel,
            webhook=asked.webhook,
            idempotency_key=key,
            fingerprint=b"" if key is None else fingerprint(asked),
            traceparent=trace,
            created_at=created_at,
            expires_at=self._expires_at(asked, created_at, prefix),
        )

    def _check_webhook(self, url: str, prefix: str) -> None:
        if not self._webhooks:
            why = "webhooks are switched off here; the operator sets TIDINGS_WEBHOOK_SECRET and TIDINGS_WEBHOOKS=on"
            raise ProblemError(422, "webhooks are switched off", Fault(f"{prefix}webhook", why))
        if self._webhooks_public_only and is_plainly_private(url):
            why = "must be at a public address; the operator can permit others by TIDINGS_WEBHOOK_ADDRESSES=any"
            raise ProblemError(422, "the webhook is not at a public address", Fault(f"{prefix}webhook", why))

    def _expires_at(self, asked: NewSubmission, created_at: datetime, prefix: str) -> datetime | None:
        target = self._targets[asked.target]
        seconds = target.expires_in_seconds if asked.expires_in is None else asked.expires_in
        if seconds is None:
            return None
        if target.expires_in_seconds_max is not None and seconds > target.expires_in_seconds_max:
            why = f"must be at most {target.expires_in_seconds_max}, as the target has it"
            raise ProblemError(422, "expires_in is too long", Fault(f"{prefix}expires_in", why))
        return created_at + timedelta(seconds=seconds)


def accepted(row: Row) -> dict[str, Any]:
    """The response body for a new submission."""
    return {
        "id": str(row.id),
        "status": "queued",
        "target": row.target,
        "created_at": timestamp(row.created_at),
        "links": links(row.id),
    }


def accepted_headers(row: Row) -> dict[str, str]:
    """The response headers for a new submission."""
    return {"Location": f"/v1/submissions/{row.id}", "Retry-After": str(RETRY_AFTER_SECONDS)}
