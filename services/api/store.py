"""The rows of the api: one method per statement of queries.sql, or one transaction of several statements.
The reads for clients are limited to one tenant.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal, LiteralString, TypeVar
from uuid import UUID

from psycopg import Connection, OperationalError
from psycopg.errors import CheckViolation
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import PoolTimeout

from services.api.callback import Attempt, Result
from services.api.database import Pool, answering_within
from services.api.row import Row, Stored
from services.api.starts import Start
from tidings.contract.ids import SubmissionId, batch_ids, new_event_id

T = TypeVar("T")
_COLUMNS = tuple(field.name for field in fields(Row))
# The writers' pool may hold this many connections that a restart of Postgres broke; each fails at its next use.
ATTEMPTS_MAX = 5
# After this time a row is not retried, because the rows behind it wait as well.
REPEAT_SECONDS = 15.0
# Probes time out after some seconds.
PING_SECONDS = 2.0


class Store:
    """Both pools are in autocommit; `writers` serves the committer and batches."""

    def __init__(self, pool: Pool, writers: Pool, queries: Mapping[str, LiteralString]) -> None:
        self._pool = pool
        self._writers = writers
        self._q = queries

    def insert(self, rows: Sequence[Row], *, batch: bool = False) -> list[Stored]:
        """Commit `rows` in one transaction; return one `Stored` per row, in order. `batch`: the ids are consecutive,
        and the key of the first row is the key of all.

        The transaction is retried if the connection was lost, because a COMMIT without a response may have been
        executed, and if a partition was attached between routing a row and inserting it.
        """
        deadline = time.monotonic() + REPEAT_SECONDS
        for attempt in range(1, ATTEMPTS_MAX):
            try:
                return self._insert(rows, again=attempt > 1, batch=batch)
            except PoolTimeout:
                raise  # the database cannot be reached
            except (OperationalError, CheckViolation):
                if time.monotonic() > deadline:
                    raise
        return self._insert(rows, again=True, batch=batch)

    def _insert(self, rows: Sequence[Row], *, again: bool, batch: bool) -> list[Stored]:
        """`again`: some rows may be stored already. The api generates the ids, so an equal id means the same row."""
        statement = self._q["insert_submissions"] + (f"\n{self._q['unless_there']}" if again else "")
        with self._writers.connection() as connection:
            if all(row.idempotency_key is None for row in rows):
                _insert(connection, statement, rows)
                return [Stored(row.id, repeated=False, same_input=True) for row in rows]
            with connection.transaction():
                earlier = self._earlier(connection, rows)
                if batch and earlier:
                    [first] = earlier.values()
                    return [replace(first, id=id_) for id_ in batch_ids(first.id, len(rows))]
                _insert(connection, statement, [row for row in rows if row.id not in earlier])
        return [earlier.get(row.id) or Stored(row.id, repeated=False, same_input=True) for row in rows]

    def _earlier(self, connection: Connection[Any], rows: Sequence[Row]) -> dict[SubmissionId, Stored]:
        """Return the rows whose idempotency key belongs to an earlier submission, which may itself be in `rows`."""
        keyed = [row for row in rows if row.idempotency_key is not None]
        if not keyed:
            return {}
        # Keys are always taken in one order, so that two transactions with the same keys wait instead of deadlocking.
        keyed.sort(key=lambda row: (row.tenant, row.idempotency_key or ""))
        parameters = {
            "tenant": [row.tenant for row in keyed],
            "key": [row.idempotency_key for row in keyed],
            "id": [row.id for row in keyed],
            "fingerprint": [row.fingerprint for row in keyed],
        }
        connection.execute(self._q["take_keys"], parameters)
        cursor = connection.execute(self._q["read_keys"], parameters)
        held = {(tenant, key): (SubmissionId(id_), fingerprint) for tenant, key, id_, fingerprint in cursor.fetchall()}
        earlier = {}
        for row in keyed:
            id_, fingerprint = held[(row.tenant, row.idempotency_key)]
            if id_ != row.id:
                earlier[row.id] = Stored(id_, repeated=True, same_input=fingerprint == row.fingerprint)
        return earlier

    def tenant_of_key(self, key_sha256: bytes) -> str | None:
        row = self._one("tenant_of_key", {"key_sha256": key_sha256})
        return None if row is None else str(row["tenant"])

    def get(self, tenant: str, id_: SubmissionId) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """Return the submission with its result, and its attempts; None if the tenant has none with this id."""
        parameters = {"id": id_, "tenant": tenant}
        with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            row = cursor.execute(self._q["get"], parameters).fetchone()
            return None if row is None else (row, cursor.execute(self._q["attempts"], parameters).fetchall())

    def list(self, tenant: str, filters: Mapping[str, Any]) -> tuple[Sequence[dict[str, Any]], UUID | None]:
        """Return a page and the cursor of the next page, or None if there is no next page.
        A page with filters may be short, or empty, and still have a next page: it examines at most `look` submissions.
        """
        with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            rows = cursor.execute(self._q["list"], {"tenant": tenant, **filters}).fetchall()
        page = [row for row in rows if row["id"] is not None]
        if len(page) > filters["limit"]:
            page = page[: filters["limit"]]
            return page, page[-1]["id"]
        return page, rows[0]["look_on"] if rows else None

    def result(self, tenant: str, id_: SubmissionId) -> dict[str, Any] | None:
        """Return `body`, `content_type` and `outcome` (None: not ended); None if the tenant has none with this id."""
        return self._one("result", {"id": id_, "tenant": tenant})

    def cancel(self, tenant: str, id_: SubmissionId) -> bool:
        """Cancel the submission; return whether this call ended it."""
        parameters = {"id": id_, "tenant": tenant, "event_id": new_event_id()}
        return _retry_once(lambda: self._one("cancel", parameters)) is not None

    def remove_content(self, tenant: str, id_: SubmissionId) -> Literal["unknown", "open", "removed"]:
        """Erase the input and the answer of an ended submission; return the outcome of the request."""
        row = self._one("remove_content", {"id": id_, "tenant": tenant})
        assert row is not None
        removal: Literal["unknown", "open", "removed"] = row["came_to"]
        return removal

    def target_of(self, id_: SubmissionId) -> tuple[str, str] | None:
        """Return the target and the tenant."""
        row = self._one("target_of", {"id": id_})
        return None if row is None else (row["target"], row["tenant"])

    def record(self, id_: SubmissionId, tenant: str, attempt: Attempt | None, result: Result | None) -> bool:
        """Store what a callback reports in one transaction; return whether it ended the submission. Repeats change
        nothing.
        """
        return _retry_once(lambda: self._record(id_, tenant, attempt, result))

    def _record(self, id_: SubmissionId, tenant: str, attempt: Attempt | None, result: Result | None) -> bool:
        with self._pool.connection() as connection, connection.transaction():
            if attempt is not None:
                connection.execute(self._q["insert_attempt"], {"id": id_, "tenant": tenant, **vars(attempt)})
            if result is not None and self._end(connection, id_, result):
                return True
            # The relay stores the content of this callback, and keeps it unless it learns that the content was removed.
            connection.execute(self._q["remove_late_content"], {"id": id_})
            return False

    def _end(self, connection: Connection[Any], id_: SubmissionId, result: Result) -> bool:
        output = None if result.output is None else Jsonb(result.output)
        parameters = {"id": id_, "event_id": new_event_id(), **vars(result), "output": output}
        return connection.execute(self._q["insert_result"], parameters).fetchone() is not None

    def insert_starts(self, starts: Sequence[Start]) -> int:
        """Return how many starts were new and belong to existing submissions."""
        columns = {
            "id": [start.submission_id for start in starts],
            "number": [start.number for start in starts],
            "started_at": [start.started_at for start in starts],
        }

        def insert() -> int:
            with self._pool.connection() as connection:
                return connection.execute(self._q["insert_starts"], columns).rowcount

        return _retry_once(insert)

    def dispatch(self, ids: Sequence[UUID]) -> Sequence[dict[str, Any]]:
        """Return rows of `id`, `target`, `content_type`, `size` of the body in bytes, and `ended`."""
        return self._all("dispatch", {"ids": list(ids)})

    def bodies(self, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        return {row["id"]: bytes(row["body"]) for row in self._all("bodies", {"ids": list(ids)})}

    def execute(self, statement: LiteralString, parameters: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """Execute a statement of another module in a transaction of its own."""
        with self._pool.connection() as connection:
            return connection.execute(statement, parameters).fetchall()

    def ping(self) -> None:
        with self._pool.connection(timeout=PING_SECONDS) as connection, answering_within(connection, PING_SECONDS):
            connection.execute(self._q["ping"])

    def _all(self, query: str, parameters: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=dict_row, binary=True)
            return cursor.execute(self._q[query], parameters).fetchall()

    def _one(self, query: str, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
        with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=dict_row, binary=True)
            return cursor.execute(self._q[query], parameters).fetchone()


def _retry_once(work: Callable[[], T]) -> T:
    """Retry if a partition was attached between routing a row to the default partition and inserting it there."""
    try:
        return work()
    except CheckViolation:
        return work()


def _insert(connection: Connection[Any], statement: LiteralString, rows: Sequence[Row]) -> None:
    """Insert with one statement, which is atomic by itself."""
    if rows:
        columns = {name: [getattr(row, name) for row in rows] for name in _COLUMNS}
        connection.execute(statement, columns)
