"""Messages as clients see them, and the selection of messages to cancel by filters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.relay.message import INLINE_BYTES_MAX
from services.relay.options import NO_OPTIONS, FlowControl, Options
from services.relay.protocol.filters import Filters
from services.relay.protocol.views import Gate, MessageView
from services.relay.store.database import Database, Row
from services.relay.store.encryption import Encryption
from services.relay.store.events import Events
from services.relay.store.filtering import fetch_planned, filtered, parameters
from services.relay.store.flow_keys import FlowKeys
from services.relay.store.queues import Queues
from services.relay.store.sealing import Opened, UnreadableError, open_sealed

# Columns of messages and of dead letters that a view has under the same name.
_COLUMNS = ("id", "url", "method", "body", "retries_max", "created_at", "not_before", "state", "due_at", "timeout_ms", "queue",
            "topic", "endpoint", "schedule_id", "caller_ip")  # fmt: skip


class MessageViews:
    """Reads only. A message that no key decrypts is shown without its headers."""

    def __init__(self, database: Database, encryption: Encryption) -> None:
        self._database = database
        self._encryption = encryption
        self._events = Events(database, encryption)
        self._queues = Queues(database)
        self._flow_keys = FlowKeys(database)
        self._q = filtered("message_views")

    async def get(self, message_id: str, keep_seconds: float) -> MessageView | None:
        """The message with its attempts and its gate, until `keep_seconds` after its end. None once it is cancelled.

        A large body, which is stored in pieces, is left out.
        """
        asked = {"id": message_id, "keep_seconds": keep_seconds, "body_bytes_max": INLINE_BYTES_MAX}
        found = await self._database.fetch(self._q["get"], asked)
        if not found:
            return None
        view = message_view(self._encryption, found[0])
        attempts = await self._events.attempts(message_id)
        if view.state in {"queued", "waiting"} and attempts and attempts[-1].outcome is None:
            attempts = attempts[:-1]  # a claim that was put off
        return replace(view, attempts=attempts, gate=await self._gate(found[0]))

    async def state(self, message_id: str, keep_seconds: float) -> str | None:
        """The state of the message, also once it is cancelled, until `keep_seconds` after its end."""
        found = await self._database.fetch(self._q["state"], {"id": message_id, "keep_seconds": keep_seconds})
        return found[0]["state"] if found else None

    async def select_ids(self, filters: Filters, limit: int) -> list[str]:
        """Up to `limit` matching messages that have not ended, oldest first."""
        values = parameters(filters) | {"limit": limit}
        return [row["id"] for row in await fetch_planned(self._database, self._q["select_ids"], values)]

    async def _gate(self, row: Row) -> Gate:
        if row["state"] not in {"queued", "waiting"}:
            return Gate()
        flow = None if row["flow_key"] is None else await self._flow_keys.get(row["flow_key"])
        put_offs, error = row["put_offs"] or 0, row["put_off_error"] or ""
        if row["queue"] is None:
            return Gate(flow=flow, put_offs=put_offs, put_off_error=error)
        [counted] = await self._database.fetch(
            self._q["ahead"], {"queue": row["queue"], "id": row["id"], "holds": row["holds"]}
        )
        return Gate(flow, await self._queues.get(row["queue"]), counted["ahead"], put_offs, error)


def message_view(encryption: Encryption, row: Row) -> MessageView:
    """The view of a row of messages or dead letters, without attempts and gate. It has no headers if the row cannot be
    decrypted.
    """
    columns: dict[str, Any] = {name: row[name] for name in _COLUMNS}
    try:
        opened = open_sealed(encryption, row["sealed"])
    except UnreadableError:
        key = row["flow_key"]
        opened = Opened({}, NO_OPTIONS if key is None else Options(flow=FlowControl(key, None, None)))
    return MessageView(
        **columns,
        headers=opened.headers,
        options=opened.options,
        labels=tuple(row["labels"]),
        retried=row.get("retried", 0),
    )
