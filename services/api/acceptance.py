"""The acceptance of submissions: valid rows are committed and counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from prometheus_client import Counter
from pydantic import ValidationError

from services.api.committer import Committer
from services.api.models import NewBatch, batch_fingerprint
from services.api.presentation import RETRY_AFTER_SECONDS, links
from services.api.problem import Fault, ProblemError, faults_of
from services.api.row import Row, Stored
from services.api.store import Store
from services.api.validation import Validator
from tidings.contract.completion import timestamp
from tidings.contract.ids import batch_ids, new_batch_id


class Acceptor:
    """Stores the rows that `validator` builds; `submitted` counts them by target."""

    def __init__(
        self, validator: Validator, committer: Committer, store: Store, submitted: Counter, targets: Iterable[str]
    ) -> None:
        self.row = validator.row
        self._committer = committer
        self._store = store
        # One counter per target: the targets are known and few, and looking up a label takes longer than counting.
        self._submitted = {target: submitted.labels(target) for target in targets}

    def accept(self, row: Row) -> Stored:
        """Commit one row. Raises `ProblemError` and the exceptions of the commit."""
        return self._checked(row, self._committer.store(row))

    async def accept_async(self, row: Row) -> Stored:
        """`accept` for the event loop."""
        return self._checked(row, await self._committer.store_async(row))

    def _checked(self, row: Row, stored: Stored) -> Stored:
        if not stored.same_input:
            raise _other_input()
        if not stored.repeated:
            self._submitted[row.target].inc()
        return stored

    def accept_batch(self, tenant: str, content: Any, *, key: str | None, trace: str | None) -> list[Row]:
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
            raise _other_input()
        if not stored[0].repeated:
            for row in rows:
                self._submitted[row.target].inc()
        return [replace(row, id=one.id) for row, one in zip(rows, stored, strict=True)]


def _other_input() -> ProblemError:
    why = "was used with another input"
    return ProblemError(422, "the Idempotency-Key belongs to another submission", Fault("Idempotency-Key", why))


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
