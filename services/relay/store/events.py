"""The events of messages, newest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from services.relay.memory.memory import PAGE_BYTES_MAX
from services.relay.protocol.cursor import Cursor, encode_cursor
from services.relay.protocol.filters import Filters
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.views import AttemptView, EventView
from services.relay.store.database import Database, Row
from services.relay.store.encryption import Encryption
from services.relay.store.filtering import fetch_planned, filtered, microseconds, parameters
from services.relay.store.sealing import Opened, UnreadableError, open_sealed

PAGE_MAX = 1000
# A page may have a thousand messages. A larger body is shown only by the message itself.
BODY_BYTES_MAX = 2048
# The limit for headers and options of a page's messages. Only headers of many KB each reach it; those of the last
# messages are then not shown.
DETAILS_BYTES_MAX = 4 * PAGE_BYTES_MAX
_FAULTS = frozenset({"ERROR", "RETRY", "FAILED"})
# The states of the log that end an attempt, and the outcome that each stands for. A later state of the same attempt is
# more specific.
_OUTCOMES = {"ERROR": "error", "RETRY": "retry", "DELIVERED": "delivered", "FAILED": "failed", "CANCELED": "cancelled"}


class Events:
    """Reads only: events are written in the transactions that they record."""

    def __init__(self, database: Database, encryption: Encryption) -> None:
        self._database = database
        self._encryption = encryption
        self._q = filtered("events")

    async def list(self, filters: Filters) -> tuple[list[EventView], str | None]:
        """A page of `filters.count` events, or PAGE_MAX, and the cursor of the next page, None at the end. A page has
        fewer events when their answers are large.
        """
        limit = filters.count or PAGE_MAX
        values = parameters(filters) | {
            "limit": limit + 1,
            "cursor_id": _sequence(filters.cursor),
            "bytes_max": PAGE_BYTES_MAX,
        }
        statement = self._q["earliest" if filters.earliest_first else "newest"]
        found = await fetch_planned(self._database, statement, values)
        page = found[:limit]
        more = bool(found) and found[0]["found"] > len(page)
        cursor = encode_cursor(microseconds(page[-1]["at"]), str(page[-1]["sequence"])) if more else None
        told = await self._told({row["message_id"] for row in page})
        return [_view(row, told.get(row["message_id"], {}), filters.trim_body) for row in page], cursor

    async def attempts(self, message_id: str) -> tuple[AttemptView, ...]:
        """The message's attempts, the first one first."""
        return folded(await self._database.fetch(self._q["attempts"], {"message_id": message_id}))

    async def _told(self, ids: set[str]) -> dict[str, Mapping[str, Any]]:
        """What the log shows of these messages in addition to its columns: keyword arguments of `EventView`, by id."""
        if not ids:
            return {}
        values = {"ids": sorted(ids), "body_bytes_max": BODY_BYTES_MAX, "bytes_max": DETAILS_BYTES_MAX}
        found = await fetch_planned(self._database, self._q["told"], values)
        # Rows written before 0004 have no details. Messages that were sealed together are opened once.
        opened = {
            details: self._opened(details) for details in {row["details"] for row in found} if details is not None
        }
        # If the options cannot be decrypted, the fields to redact are unknown, so nothing is shown.
        return {
            row["message_id"]: {"headers": shown.headers, "options": shown.options, "body": row["body"]}
            for row in found
            if (shown := opened.get(row["details"])) is not None
        }

    def _opened(self, details: bytes) -> Opened | None:
        try:
            return open_sealed(self._encryption, details)
        except UnreadableError:
            return None


def folded(events: list[Row]) -> tuple[AttemptView, ...]:
    """The attempts derived from a message's events, in the order of time. A call whose process died appears twice under
    its number.
    """
    attempts: list[AttemptView] = []
    for event in events:
        if event["state"] == "ACTIVE":
            if attempts and attempts[-1].number == event["attempt"] and attempts[-1].outcome is None:
                attempts.pop()  # a claim that was put off
            attempts.append(AttemptView(event["attempt"], event["at"]))
        elif event["state"] in _OUTCOMES and attempts and attempts[-1].number == event["attempt"]:
            last = attempts[-1]
            attempts[-1] = replace(
                last,
                ended_at=last.ended_at or event["at"],
                status=last.status if event["status"] is None else event["status"],
                outcome=_OUTCOMES[event["state"]],
                error=last.error or event["error"],
                next_retry_at=event["next_due_at"] or last.next_retry_at,
            )
    return tuple(attempts)


def _sequence(cursor: Cursor | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.id.isdecimal() or len(cursor.id) > 18:
        raise InvalidRequestError("invalid cursor: it is not one of this list")
    return int(cursor.id)


def _view(row: Row, told: Mapping[str, Any], trim_body: int | None) -> EventView:
    names = ("message_id", "state", "url", "method", "retries_max", "timeout_ms", "queue", "flow_key", "topic", "endpoint",
             "schedule_id", "caller_ip")  # fmt: skip
    body = cast("bytes | None", row["response_body"])
    return EventView(
        **{name: row[name] for name in names},
        **told,
        error=_error(row),
        time=row["at"],
        labels=tuple(row["labels"]),
        next_delivery_at=row["next_due_at"],
        response_status=row["status"],
        response_headers=row["response_header"],
        response_body=body if body is None or trim_body is None else body[:trim_body],
    )


def _error(row: Row) -> str | None:
    """The reason why no answer came, or else the text that the answer was no success."""
    if row["error"] is None and row["state"] in _FAULTS and row["status"] is not None:
        return f"the destination answered {row['status']}"
    error: str | None = row["error"]
    return error
