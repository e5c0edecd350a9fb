"""The rows of the reconciler: one method per statement of queries.sql. It reads published rows, and inserts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from tidings.contract.ids import new_event_id
from tidings.database.postgres import connect

# A look reads a bounded part of an index. A statement that takes longer waits for a lock or for a faulty server, and is
# retried.
STATEMENT_SECONDS = 15.0
NO_ID = UUID(int=0)


@dataclass(frozen=True)
class Due:
    """A submission that is due; `open`: it has not ended."""

    expires_at: datetime
    id: UUID
    open: bool

    @property
    def position(self) -> tuple[datetime, UUID]:
        """The position at which the next look begins."""
        return self.expires_at, self.id


class Store:
    """One connection, opened when it is needed, and again after each fault. For one thread."""

    def __init__(self, database_url: str, queries: Mapping[str, LiteralString]) -> None:
        self._database_url = database_url
        self._q = queries
        self._connection: psycopg.Connection[dict[str, Any]] | None = None

    def due(self, after: tuple[datetime, UUID], upto: datetime | None, limit: int) -> list[Due]:
        """Return the next submissions whose `expires_at` is over: after `after`, up to `upto` or to the present."""
        parameters = {"after_at": after[0], "after_id": after[1], "upto": upto, "limit": limit}
        return [Due(row["expires_at"], row["id"], row["open"]) for row in self._execute("due", parameters)]

    def expire(self, ids: Sequence[UUID]) -> list[UUID]:
        """Expire these submissions; return those that had no result yet."""
        parameters = {"ids": list(ids), "event_ids": [new_event_id() for _ in ids]}
        return [row["submission_id"] for row in self._execute("expire", parameters)]

    def sweep(self, after: UUID, grace_seconds: float, limit: int) -> list[tuple[UUID, bool]]:
        """Return the next submissions by id, and whether each is open."""
        parameters = {"after": after, "grace_seconds": grace_seconds, "limit": limit}
        return [(row["id"], row["open"]) for row in self._execute("sweep", parameters)]

    def still_open(self, ids: Sequence[UUID]) -> list[UUID]:
        """Return those of `ids` that have no result, in order."""
        return [row["id"] for row in self._execute("still_open", {"ids": list(ids)})]

    def open_between(self, after: UUID, upto: UUID, limit: int) -> tuple[UUID | None, Sequence[UUID]]:
        """Examine the next submissions by id, up to `upto`; return the last id (None: there are none)
        and the open ids.
        """
        [row] = self._execute("open_between", {"after": after, "upto": upto, "limit": limit})
        return row["last"], row["open_ids"]

    def nudge_submissions(self, ids: Sequence[UUID]) -> list[UUID]:
        """Emit open submissions again; return those that are still open."""
        return [row["id"] for row in self._execute("nudge_submissions", {"ids": list(ids)})]

    def known(self, ids: Sequence[UUID]) -> set[UUID]:
        """Return those of `ids` that are submissions."""
        return {row["id"] for row in self._execute("known", {"ids": list(ids)})}

    def ended(self, after: UUID, settle_seconds: float, limit: int) -> list[tuple[UUID, UUID]]:
        """Return the next results in the order of their ends: submission id and event id."""
        parameters = {"after": after, "settle_seconds": settle_seconds, "limit": limit}
        return [(row["submission_id"], row["event_id"]) for row in self._execute("ended", parameters)]

    def count_ended(self, after: UUID, upto: UUID) -> int:
        """Return the number of results with event ids between these, `upto` included."""
        [row] = self._execute("count_ended", {"after": after, "upto": upto})
        return int(row["count"])

    def nudge_results(self, ids: Sequence[UUID]) -> list[UUID]:
        """Emit results again; return those that exist."""
        return [row["submission_id"] for row in self._execute("nudge_results", {"ids": list(ids)})]

    def unsettled(self, after: tuple[datetime, UUID], grace_seconds: float, limit: int) -> list[tuple[datetime, UUID]]:
        """Return the next removals of contents that are not settled: their time and submission."""
        parameters = {"after_at": after[0], "after_id": after[1], "grace_seconds": grace_seconds, "limit": limit}
        return [(row["removed_at"], row["submission_id"]) for row in self._execute("unsettled", parameters)]

    def erase_again(self, ids: Sequence[UUID]) -> list[tuple[UUID, Sequence[str]]]:
        """Erase the content that arrived after its removal; return, for each submission, the relay's ids of its
        messages.
        """
        return [(row["id"], row["message_ids"]) for row in self._execute("erase_again", {"ids": list(ids)})]

    def settle(self, uptos: Mapping[UUID, datetime]) -> None:
        """Mark the removals of each submission up to that time as settled."""
        self._execute("settle", {"ids": list(uptos), "uptos": list(uptos.values())})

    def prune_nudges(self, seconds: float) -> None:
        """Delete nudges that are older than `seconds`."""
        for name in ("prune_submission_nudges", "prune_result_nudges"):
            self._execute(name, {"seconds": seconds})

    def low_water(self, name: str) -> UUID:
        """Return the position up to which look `name` found no fault; the smallest id if it never looked."""
        found = self._execute("low_water", {"name": name})
        return found[0]["at"] if found else NO_ID

    def set_low_water(self, name: str, at: UUID) -> None:
        self._execute("set_low_water", {"name": name, "at": at})

    def floor(self, seconds_ago: float) -> UUID:
        """Return the smallest id of the time `seconds_ago`, by the database's clock."""
        [row] = self._execute("floor", {"seconds": seconds_ago})
        found: UUID = row["at"]
        return found

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _execute(self, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Execute a statement in its own transaction. After an error the next statement gets a new connection."""
        try:
            if self._connection is None:
                self._connection = connect(
                    self._database_url, application="tidings-reconciler", statement_seconds=STATEMENT_SECONDS
                )
            cursor = self._connection.execute(self._q[name], parameters)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error:
            self.close()
            raise
