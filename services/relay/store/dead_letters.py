"""Dead letters: messages that finally failed. They can be read, published again, or removed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection

from services.relay.memory.memory import PAGE_BYTES_MAX
from services.relay.message import ANSWER_INLINE_BYTES_MAX, INLINE_BYTES_MAX
from services.relay.protocol.cursor import encode_cursor
from services.relay.protocol.filters import Filters
from services.relay.protocol.overriding import overridden
from services.relay.protocol.views import DeadLetterView
from services.relay.store.database import Database, Row, rows
from services.relay.store.encryption import Encryption
from services.relay.store.filtering import fetch_planned, filtered, microseconds, parameters, planned_rows
from services.relay.store.message_views import message_view
from services.relay.store.messages import Accepted, Messages
from services.relay.store.sealing import UnreadableError, draft_of, open_sealed
from services.relay.store.slicing import beginning

Ids = list[str]
Views = list[DeadLetterView]

PAGE_MAX = 100
# The most dead letters removed or retried in one transaction. The client continues with the cursor.
BULK_MAX = 500
# The limit for bodies, headers and options of the dead letters retried in one transaction.
RETRY_BYTES_MAX = 8 * 1024 * 1024
# A larger body is not shown. Of a larger answer only the beginning is.
_SHOWN = {"body_bytes_max": INLINE_BYTES_MAX, "answer_bytes_max": ANSWER_INLINE_BYTES_MAX}


class _DuplicateError(Exception):
    """Nothing was published, so nothing must be committed."""

    def __init__(self, accepted: Accepted) -> None:
        super().__init__()
        self.accepted = accepted


class DeadLetters:
    """Pages are newest first. Their cursor is None at the end."""

    def __init__(
        self,
        database: Database,
        encryption: Encryption,
        messages: Messages,
        *,
        discard: Callable[[Sequence[str]], None],
        deduplication_seconds: float = 600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`discard` receives the keys of stored bodies that may have lost their last reference, after the commit.
        `clock` gives Unix seconds, for an `Upstash-Not-Before` that overrides that of the dead letter.
        """
        self._database = database
        self._encryption = encryption
        self._messages = messages
        self._discard = discard
        self._deduplication_seconds = deduplication_seconds
        self._clock = clock
        self._q = filtered("dead_letters")

    async def list(self, filters: Filters) -> tuple[list[DeadLetterView], str | None]:
        """A page of `filters.count` dead letters, or PAGE_MAX, and the cursor of the next page. A page has fewer when
        their bodies are large.
        """
        limit = filters.count or PAGE_MAX
        statement = self._q["earliest" if filters.earliest_first else "newest"]
        found = await fetch_planned(self._database, statement, _selection(filters, limit + 1) | _SHOWN)
        page = beginning(found[:limit], PAGE_BYTES_MAX, _size)
        views = await self._views([row["id"] for row in page], filters.trim_body)
        return views, _cursor(page) if len(found) > len(page) else None

    async def get(self, dlq_id: str) -> DeadLetterView | None:
        """The dead letter with its whole answer, as far as that was kept."""
        found = await self._views([dlq_id], None)
        return found[0] if found else None

    async def delete(self, dlq_id: str) -> bool:
        """Remove the dead letter. Returns whether it existed."""
        gone = await self._database.fetch(self._q["delete"], {"ids": [dlq_id]})
        self._discard(_keys(gone))
        return len(gone) == 1

    async def delete_many(self, filters: Filters) -> tuple[int, str | None]:
        """Remove matching dead letters, up to `filters.count` or BULK_MAX. Returns how many, and a cursor if there may
        be more.
        """

        async def work(connection: AsyncConnection[Any]) -> tuple[list[Row], str | None]:
            found, cursor = await self._matching(connection, filters)
            return await rows(connection, self._q["delete"], {"ids": [row["id"] for row in found]}), cursor

        gone, cursor = await self._database.run(work)
        self._discard(_keys(gone))
        return len(gone), cursor

    async def retry(self, dlq_id: str, overrides: Mapping[str, str]) -> Accepted | None:
        """Publish the message again with `overrides` (publish headers) over its own options. None when it is unknown.

        The message's own deduplication id is not used. If `overrides` name an id that is in use, nothing is published
        and the dead letter stays. It also stays when this raises `InvalidRequestError` or `UnreadableError`.
        """

        async def work(connection: AsyncConnection[Any]) -> tuple[Accepted | None, list[Row]]:
            found = await rows(connection, self._q["take"], {"ids": [dlq_id]} | _SHOWN)
            drafts = [overridden(draft_of(self._encryption, row), overrides, self._clock()) for row in found]
            accepted = await self._messages.accept_in(connection, drafts, self._deduplication_seconds)
            for one in accepted:
                if one.deduplicated:
                    raise _DuplicateError(one)
            return next(iter(accepted), None), found

        try:
            accepted, taken = await self._database.run(work)
        except _DuplicateError as duplicate:
            return duplicate.accepted
        self._discard(_keys(taken))
        return accepted

    async def retry_many(self, filters: Filters) -> tuple[Ids, str | None]:
        """Publish matching messages again. Returns the new ids and a cursor. Unreadable dead letters stay."""

        async def work(connection: AsyncConnection[Any]) -> tuple[Ids, str | None, list[Row]]:
            found, cursor = await self._matching(connection, filters, RETRY_BYTES_MAX)
            sealed = await rows(connection, self._q["sealed"], {"ids": [row["id"] for row in found]})
            readable = [row["id"] for row in sealed if self._readable(row)]
            taken = await rows(connection, self._q["take"], {"ids": readable} | _SHOWN)
            drafts = [draft_of(self._encryption, row) for row in sorted(taken, key=lambda row: row["id"], reverse=True)]
            accepted = await self._messages.accept_in(connection, drafts, self._deduplication_seconds)
            return [one.message_id for one in accepted], cursor, taken

        ids, cursor, taken = await self._database.run(work)
        self._discard(_keys(taken))
        return ids, cursor

    async def _matching(
        self, connection: AsyncConnection[Any], filters: Filters, bytes_max: int | None = None
    ) -> tuple[Sequence[Row], str | None]:
        """The dead letters to remove or retry, with up to `bytes_max` in their bodies, headers and options; and the
        cursor when there may be more.
        """
        limit = min(filters.count or BULK_MAX, BULK_MAX)
        found = await planned_rows(connection, self._q["matching"], _selection(filters, limit) | _SHOWN)
        some = found if bytes_max is None else beginning(found, bytes_max, _size)
        return some, _cursor(some) if len(some) < len(found) or len(found) == limit else None

    def _readable(self, row: Row) -> bool:
        try:
            return not open_sealed(self._encryption, row["sealed"]).newer
        except UnreadableError:
            return False

    async def _views(self, ids: Ids, trim_body: int | None) -> Views:
        """Views in the order of `ids`, without dead letters that were removed meanwhile."""
        found = await self._database.fetch(self._q["shown"], {"ids": ids, "trim_body": trim_body} | _SHOWN)
        return [self._view(row) for row in found]

    def _view(self, row: Row) -> DeadLetterView:
        return DeadLetterView(
            row["id"],
            message_view(
                self._encryption, row | {"id": row["message_id"], "state": "failed", "due_at": row["failed_at"]}
            ),
            row["response_status"],
            row["response_header"],
            row["response_body"],
        )


def _keys(gone: Sequence[Row]) -> list[str]:
    """The keys of the stored bodies of removed dead letters. The new message of a retry refers to its body."""
    return [key for row in gone for key in (row["body_key"], row["response_key"]) if key is not None]


def _size(row: Row) -> int:
    size: int = row["size"]
    return size


def _selection(filters: Filters, limit: int) -> dict[str, Any]:
    cursor_id = None if filters.cursor is None else filters.cursor.id
    return parameters(filters) | {"limit": limit, "cursor_id": cursor_id}


def _cursor(page: Sequence[Row]) -> str | None:
    return encode_cursor(microseconds(page[-1]["failed_at"]), page[-1]["id"]) if page else None
