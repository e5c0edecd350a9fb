"""Schedules and their firing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg
from cryptography.fernet import InvalidToken
from psycopg import AsyncConnection

from services.relay.memory.memory import PAGE_BYTES_MAX
from services.relay.message import Draft
from services.relay.protocol.address import GroupName, destination
from services.relay.protocol.cron import Cron, next_after, parse_cron
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.publishing import merged
from services.relay.protocol.schedule import ScheduleDraft, firing
from services.relay.protocol.views import ScheduleState, ScheduleView
from services.relay.store.database import Database, Row, queries, rows
from services.relay.store.encryption import Encryption
from services.relay.store.messages import Messages
from services.relay.store.sealing import UnreadableError, body_of
from services.relay.store.tokens import Token
from services.relay.store.topics import Topics
from services.relay.store.written import in_row

# A schedule without a next time is examined again after this, as the fault may be in the relay.
BROKEN_PAUSE = timedelta(days=1)
_STATES: dict[str, ScheduleState] = {"delivered": "SUCCESS", "failed": "FAIL", "cancelled": "FAIL", "canceled": "FAIL"}


class Schedules:
    """Schedules as stored. `fire_once` publishes the due ones."""

    def __init__(
        self,
        database: Database,
        encryption: Encryption,
        messages: Messages,
        topics: Topics,
        *,
        deduplication_seconds: float = 600.0,
        wait_seconds: Callable[[Token, int], float] = lambda _token, _publishes: 0.0,
        accepted: Callable[[int], None] = lambda _count: None,
    ) -> None:
        """`wait_seconds` is that of `Authenticator`. `accepted` receives the number of messages that a firing
        committed.
        """
        self._wait_seconds = wait_seconds
        self._accepted = accepted
        self._database = database
        self._encryption = encryption
        self._messages = messages
        self._topics = topics
        self._deduplication_seconds = deduplication_seconds
        self._q = queries("schedules")
        self._release = queries("chunks")["release"]

    async def upsert(self, draft: ScheduleDraft, now: datetime, token: Token | None = None) -> None:
        """Create or replace the schedule. It fires next after `now`. A paused one stays paused.

        Its firings count against the limit of `token`, also after that was revoked. Raises `InvalidRequestError`.
        """
        body = in_row(draft.body)
        content: dict[str, Any] = {"options": draft.options}
        if token is not None and token.publishes_per_second is not None:
            content |= {"token": token.name, "publishes_per_second": token.publishes_per_second}
        parameters = {
            "body": body.content, "body_key": body.key, "body_size": body.size, "body_sha256": body.sha256,
            "id": draft.schedule_id, "cron": draft.cron.text, "destination": draft.destination, "queue": draft.queue,
            "sealed": self._encryption.seal(content), "protocol": draft.protocol,
            "caller_ip": draft.caller_ip, "paused": draft.paused, "next_at": _next(draft.cron, now),
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
        """All schedules, oldest first."""
        return await self._views(None)

    async def delete(self, schedule_id: str) -> bool:
        """Remove the schedule. Its messages continue. Returns whether it existed."""

        async def work(connection: AsyncConnection[Any]) -> bool:
            gone = await rows(connection, self._q["delete"], {"id": schedule_id})
            await self._released(connection, gone)
            return bool(gone)

        return await self._database.run(work)

    async def pause(self, schedule_id: str) -> bool:
        """Pause the schedule. Returns whether it exists."""
        return await self._database.execute(self._q["pause"], {"id": schedule_id}) == 1

    async def resume(self, schedule_id: str, now: datetime) -> bool:
        """Resume the schedule. It fires next after `now`; missed times are skipped. Returns whether it exists."""

        async def work(connection: AsyncConnection[Any]) -> bool:
            found = await rows(connection, self._q["lock"], {"id": schedule_id})
            if found:
                next_at = _next(parse_cron(found[0]["cron"]), now)
                await connection.execute(self._q["resume"], {"id": schedule_id, "next_at": next_at})
            return bool(found)

        return await self._database.run(work)

    async def fire_once(self, batch_max: int, now: datetime) -> int:
        """Publish the messages of up to `batch_max` due schedules. Returns how many schedules fired.

        A schedule fires once, however many of its times were missed. A schedule that cannot fire keeps its error for
        its sender to see, and does not stop the others. A schedule whose token has used up its limit fires when the
        limit allows it again.
        """

        async def work(connection: AsyncConnection[Any]) -> list[int]:
            due = await rows(connection, self._q["due"], {"now": now, "batch_max": batch_max})
            late: Counter[str] = Counter()
            return [await self._fire(connection, row, now, late) for row in due]

        fired = await self._database.run(work)
        self._accepted(sum(fired))
        return len(fired)

    async def seconds_to_next(self, now: datetime) -> float | None:
        """The seconds until the next firing, at least 0. None: nothing is scheduled."""
        found = await self._database.fetch(self._q["next"], {})
        return max(0.0, (found[0]["next_at"] - now).total_seconds()) if found else None

    async def _released(self, connection: AsyncConnection[Any], found: Sequence[Row]) -> None:
        """Remove the stored bodies of these schedules, unless a message still refers to them."""
        if keys := [row["body_key"] for row in found if row["body_key"] is not None]:
            await connection.execute(self._release, {"keys": keys})

    async def _fire(self, connection: AsyncConnection[Any], row: Row, now: datetime, late: Counter[str]) -> int:
        """Fire a schedule. Returns how many messages it published. `late` counts the messages that wait for the limit
        of their token, by its name.
        """
        outcome: dict[str, Any] = {"id": row["id"], "next_at": now + BROKEN_PAUSE, "now": now}
        try:
            outcome["next_at"] = _next(parse_cron(row["cron"]), now)
            content = self._opened(row)
            drafts = await self._drafts(connection, row, content["options"])
            wait_seconds = self._wait(content, len(drafts), late)
            if wait_seconds > 0:
                await connection.execute(self._q["later"], outcome | {"next_at": now + timedelta(seconds=wait_seconds)})
                return 0
            async with connection.transaction():
                accepted = await self._messages.accept_in(connection, drafts, self._deduplication_seconds)
        except psycopg.Error:
            # The database failed, which affects all schedules: the whole batch is repeated.
            raise
        except Exception as error:  # noqa: BLE001  a fault of one schedule must not stop the others
            await connection.execute(self._q["broken"], outcome | {"error": str(error)[:500]})
            return 0
        ids = [one.message_id for one in accepted]
        await connection.execute(self._q["fired"], outcome | {"message_ids": ids})
        return sum(not one.deduplicated for one in accepted)

    def _wait(self, content: dict[str, Any], publishes: int, late: Counter[str]) -> float:
        """The seconds until it may fire; 0: now. Each late schedule gets a different time, so that they do not all
        return at once.
        """
        if "token" not in content:
            return 0.0
        name, limit = content["token"], content["publishes_per_second"]
        seconds = self._wait_seconds(Token(name, writes=True, publishes_per_second=limit), publishes)
        if seconds > 0:
            seconds += late[name] / limit
            late[name] += publishes
        return seconds

    async def _drafts(self, connection: AsyncConnection[Any], row: Row, options: dict[str, str]) -> list[Draft]:
        body = body_of(row)
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
            options: dict[str, str] = self._opened(row)["options"]
        except UnreadableError as unreadable:
            options, error = {}, str(unreadable)
        last = {message_id: states[message_id] for message_id in row["last_message_ids"] if message_id in states}
        return ScheduleView(**{name: row[name] for name in names}, options=options, last_states=last, error=error)

    def _opened(self, row: Row) -> dict[str, Any]:
        """`options`, and for a token with a limit its name and limit."""
        try:
            return self._encryption.open(row["sealed"])
        except InvalidToken:
            raise UnreadableError("the schedule cannot be decrypted: its key is not in RELAY_ENCRYPTION_KEYS") from None


def _next(cron: Cron, now: datetime) -> datetime:
    try:
        return next_after(cron, now)
    except (ValueError, OverflowError):
        raise InvalidRequestError(f"invalid cron: {cron.text!r} has no time after {now:%Y-%m-%d}") from None
