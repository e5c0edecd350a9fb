"""Schedules, and their firing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from cryptography.fernet import InvalidToken
from psycopg import AsyncConnection

from services.relay.memory import PAGE_BYTES_MAX
from services.relay.message import Draft
from services.relay.store.database import Database, Row, queries, rows
from services.relay.store.messages import Messages, UnstorableError
from services.relay.store.sealing import UnreadableError, body_of
from services.relay.store.topics import Topics
from services.relay.store.written import in_row
from services.relay.vault import Vault
from services.relay.wire.address import GroupName, destination
from services.relay.wire.cron import next_after, parse_cron
from services.relay.wire.invalid import InvalidRequestError
from services.relay.wire.publishing import merged
from services.relay.wire.schedule import ScheduleDraft, firing
from services.relay.wire.views import ScheduleState, ScheduleView

# When a cron expression that was accepted has no next time any more: it is looked at again, as its error may be ours.
BROKEN_PAUSE = timedelta(days=1)
_STATES: dict[str, ScheduleState] = {"delivered": "SUCCESS", "failed": "FAIL", "cancelled": "FAIL", "canceled": "FAIL"}


class Schedules:
    """Schedules as stored; `fire_once` publishes what is due."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        messages: Messages,
        topics: Topics,
        *,
        deduplication_seconds: float = 600.0,
    ) -> None:
        self._database = database
        self._vault = vault
        self._messages = messages
        self._topics = topics
        self._deduplication_seconds = deduplication_seconds
        self._q = queries("schedules")
        self._release = queries("chunks")["release"]

    async def upsert(self, draft: ScheduleDraft, now: datetime) -> None:
        """Make the schedule or replace it; it fires next after `now`. One that is paused stays so."""
        body = in_row(draft.body)
        parameters = {
            "body": body.content, "body_key": body.key, "body_size": body.size, "body_sha256": body.sha256,
            "id": draft.schedule_id, "cron": draft.cron.text, "destination": draft.destination, "queue": draft.queue,
            "sealed": self._vault.seal({"options": draft.options}), "protocol": draft.protocol,
            "caller_ip": draft.caller_ip, "paused": draft.paused, "next_at": next_after(draft.cron, now),
        }  # fmt: skip

        async def work(connection: AsyncConnection[Any]) -> None:
            before = await rows(connection, self._q["lock"], {"id": draft.schedule_id})
            await connection.execute(self._q["upsert"], parameters)
            await self._released(connection, before)

        await self._database.run(work)

    async def get(self, schedule_id: str) -> ScheduleView | None:
        views = await self._views(schedule_id)
        return views[0] if views else None

    async def all(self) -> list[ScheduleView]:
        """The oldest first."""
        return await self._views(None)

    async def delete(self, schedule_id: str) -> bool:
        """Was it there? Its messages go on."""

        async def work(connection: AsyncConnection[Any]) -> bool:
            gone = await rows(connection, self._q["delete"], {"id": schedule_id})
            await self._released(connection, gone)
            return bool(gone)

        return await self._database.run(work)

    async def pause(self, schedule_id: str) -> bool:
        """Was it there?"""
        return await self._database.execute(self._q["pause"], {"id": schedule_id}) == 1

    async def resume(self, schedule_id: str, now: datetime) -> bool:
        """It fires next after `now`: times missed meanwhile are not made up for. Was it there?"""

        async def work(connection: AsyncConnection[Any]) -> bool:
            found = await rows(connection, self._q["lock"], {"id": schedule_id})
            if found:
                next_at = next_after(parse_cron(found[0]["cron"]), now)
                await connection.execute(self._q["resume"], {"id": schedule_id, "next_at": next_at})
            return bool(found)

        return await self._database.run(work)

    async def fire_once(self, batch_max: int, now: datetime) -> int:
        """Publish the messages of up to `batch_max` due schedules; how many schedules that were.

        However many of its times were missed, a schedule fires once. One that cannot fire keeps its error for its sender
        to see, and does not stop the others.
        """

        async def work(connection: AsyncConnection[Any]) -> int:
            due = await rows(connection, self._q["due"], {"now": now, "batch_max": batch_max})
            for row in due:
                await self._fire(connection, row, now)
            return len(due)

        return await self._database.run(work)

    async def seconds_to_next(self, now: datetime) -> float | None:
        """Until the next firing, at least 0; None: nothing is scheduled."""
        found = await self._database.fetch(self._q["next"], {})
        return max(0.0, (found[0]["next_at"] - now).total_seconds()) if found else None

    async def _released(self, connection: AsyncConnection[Any], found: Sequence[Row]) -> None:
        """Remove the stored bodies that these schedules had, unless a message still needs them."""
        if keys := [row["body_key"] for row in found if row["body_key"] is not None]:
            await connection.execute(self._release, {"keys": keys})

    async def _fire(self, connection: AsyncConnection[Any], row: Row, now: datetime) -> None:
        outcome: dict[str, Any] = {"id": row["id"], "next_at": now + BROKEN_PAUSE, "now": now}
        try:
            outcome["next_at"] = next_after(parse_cron(row["cron"]), now)
            drafts = await self._drafts(connection, row)
            async with connection.transaction():
                accepted = await self._messages.accept_in(connection, drafts, self._deduplication_seconds)
        except (InvalidRequestError, UnreadableError, UnstorableError) as error:
            await connection.execute(self._q["broken"], outcome | {"error": str(error)[:500]})
        else:
            ids = [one.message_id for one in accepted]
            await connection.execute(self._q["fired"], outcome | {"message_ids": ids})

    async def _drafts(self, connection: AsyncConnection[Any], row: Row) -> list[Draft]:
        options, body = self._options(row), body_of(row)
        common = {"protocol": row["protocol"], "caller_ip": row["caller_ip"], "queue": row["queue"]}
        address = destination(row["destination"])
        if isinstance(address, GroupName):
            endpoints = await self._topics.expand_in(connection, address.text)
            if endpoints:
                return [
                    firing(row["id"], endpoint.url, merged(headers, options), body, **common,
                           topic=address.text, endpoint=endpoint.name)
                    for endpoint, headers in endpoints
                ]  # fmt: skip
            host = address.as_host()
            if host is None:
                raise InvalidRequestError(f"URL group {address.text} has no endpoints")
            return [firing(row["id"], host.text, options, body, **common)]
        return [firing(row["id"], address.text, options, body, **common)]

    async def _views(self, schedule_id: str | None) -> list[ScheduleView]:
        found = await self._database.fetch(self._q["select"], {"id": schedule_id, "bytes_max": PAGE_BYTES_MAX})
        ids = [message_id for row in found for message_id in row["last_message_ids"]]
        told = await self._database.fetch(self._q["states"], {"ids": ids}) if ids else []
        states = {row["id"]: _STATES.get(row["state"], "IN_PROGRESS") for row in told if row["state"] is not None}
        return [self._view(row, states) for row in found]

    def _view(self, row: Row, states: dict[str, ScheduleState]) -> ScheduleView:
        names = (
            "id",
            "cron",
            "destination",
            "body",
            "created_at",
            "queue",
            "paused",
            "caller_ip",
            "last_at",
            "next_at",
        )
        error = row["error"]
        try:
            options = self._options(row)
        except UnreadableError as unreadable:
            options, error = {}, str(unreadable)
        last = {message_id: states[message_id] for message_id in row["last_message_ids"] if message_id in states}
        return ScheduleView(**{name: row[name] for name in names}, options=options, last_states=last, error=error)

    def _options(self, row: Row) -> dict[str, str]:
        try:
            options: dict[str, str] = self._vault.open(row["sealed"])["options"]
        except InvalidToken:
            raise UnreadableError("the schedule cannot be decrypted: its key is not in RELAY_ENCRYPTION_KEYS") from None
        return options
