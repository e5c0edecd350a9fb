"""The relay's tables: one method a statement of queries.sql, or one transaction of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from services.relay.message import Claimed, Draft, new_message_id, options_from
from services.relay.vault import Vault
from services.relay.wire.outcome import Answer, Failed, Retry, Verdict, state_of
from services.relay.wire.views import MessageView

Pool = AsyncConnectionPool[AsyncConnection[Any]]


@dataclass(frozen=True)
class Accepted:
    """A message is committed; `deduplicated`: it was there before, under this id."""

    message_id: str
    deduplicated: bool


@dataclass(frozen=True)
class Ending:
    """One attempt's verdict, with the callbacks that follow from it, all to be committed together."""

    message: Claimed
    answer: Answer
    verdict: Verdict
    callbacks: Sequence[Draft]
    dlq_id: str


class Store:
    """All access to the database. `owner` is this process: the leases are in its name."""

    def __init__(self, pool: Pool, vault: Vault, queries: Mapping[str, LiteralString], *, owner: UUID) -> None:
        self._pool = pool
        self._vault = vault
        self._q = queries
        self._owner = owner

    async def accept(self, drafts: Sequence[Draft], deduplication_seconds: float) -> list[Accepted]:
        """Commit `drafts` in one transaction; one answer each, in order."""
        accepted: list[Accepted] = []
        rows: list[dict[str, Any]] = []
        async with self._pool.connection() as connection:
            for draft in drafts:
                message_id = new_message_id()
                holder = message_id
                if draft.deduplication_id is not None:
                    holder = await self._deduplicate(
                        connection, draft.deduplication_id, message_id, deduplication_seconds
                    )
                if holder == message_id:
                    rows.append(self._row(message_id, draft))
                accepted.append(Accepted(holder, deduplicated=holder != message_id))
            await self._insert(connection, rows)
        return accepted

    async def claim(self, batch_max: int, lease_seconds: float) -> list[Claimed]:
        """Take up to `batch_max` due messages; their attempts are on record when this returns."""
        return await self._take("claim", batch_max, lease_seconds)

    async def take_over(self, batch_max: int, lease_seconds: float) -> list[Claimed]:
        """Take messages of dead processes that are not to be repeated."""
        return await self._take("take_over", batch_max, lease_seconds)

    async def expire(self, batch_max: int) -> int:
        """Put back messages of dead processes; how many."""
        return len(await self._ids("expire", {"batch_max": batch_max}))

    async def next_due_seconds(self) -> float | None:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(self._q["next_due"])).fetchone()
        return None if row is None else row[0]

    async def heartbeat(self, ids: Sequence[str], lease_seconds: float) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(
                self._q["heartbeat"], {"ids": list(ids), "owner": self._owner, "lease_seconds": lease_seconds}
            )

    async def lost(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that this process holds no more: cancelled, or taken over."""
        return await self._ids("lost", {"ids": list(ids), "owner": self._owner})

    async def finish(self, endings: Sequence[Ending]) -> int:
        """Commit verdicts and their callbacks; how many were still ours."""
        async with self._pool.connection() as connection:
            parameters = {
                "ids": [ending.message.id for ending in endings],
                "states": [state_of(ending.verdict) for ending in endings],
                "retried": [ending.message.retried + isinstance(ending.verdict, Retry) for ending in endings],
                "delays": [
                    ending.verdict.delay_seconds if isinstance(ending.verdict, Retry) else 0.0 for ending in endings
                ],
                "owner": self._owner,
            }
            cursor = await connection.execute(self._q["finish"], parameters)
            ours = {row[0] for row in await cursor.fetchall()}
            kept = [ending for ending in endings if ending.message.id in ours]
            await self._insert(connection, [self._row(new_message_id(), d) for e in kept for d in e.callbacks])
            buried = [self._letter(ending) for ending in kept if isinstance(ending.verdict, Failed)]
            if buried:
                await connection.cursor().executemany(self._q["bury"], buried)
        return len(ours)

    async def cancel(self, ids: Sequence[str], labels: Sequence[str]) -> list[str]:
        """Cancel what has not ended; the ids of those."""
        return await self._ids("cancel", {"ids": list(ids), "labels": list(labels)})

    async def get(self, message_id: str) -> MessageView | None:
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=dict_row, binary=True)
            row = await (await cursor.execute(self._q["get"], {"id": message_id})).fetchone()
        return None if row is None else self._view(row)

    async def release(self) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(self._q["release"], {"owner": self._owner})

    async def prune(self, batch_max: int, *, keep_seconds: float, letters_seconds: float) -> int:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                self._q["prune"],
                {"batch_max": batch_max, "keep_seconds": keep_seconds, "letters_seconds": letters_seconds},
            )
            row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def depth(self) -> tuple[int, int, float]:
        """How many wait, how many are active, and for how many seconds the oldest has been due."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(self._q["depth"])).fetchone()
        assert row is not None
        return int(row[0]), int(row[1]), float(row[2])

    async def _deduplicate(
        self, connection: AsyncConnection[Any], key: str, message_id: str, window_seconds: float
    ) -> str:
        parameters = {"id": key, "message_id": message_id, "window_seconds": window_seconds}
        row = await (await connection.execute(self._q["deduplicate"], parameters)).fetchone()
        if row is None:
            # Another transaction committed the same key between our two looks; a new statement sees it.
            row = await (await connection.execute(self._q["deduplicate"], parameters)).fetchone()
        assert row is not None
        return str(row[0])

    async def _insert(self, connection: AsyncConnection[Any], rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            await connection.cursor().executemany(self._q["insert"], rows)

    async def _take(self, query: str, batch_max: int, lease_seconds: float) -> list[Claimed]:
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=dict_row, binary=True)
            await cursor.execute(
                self._q[query], {"batch_max": batch_max, "owner": self._owner, "lease_seconds": lease_seconds}
            )
            rows = await cursor.fetchall()
        return [self._claimed(row) for row in rows]

    async def _ids(self, query: str, parameters: Mapping[str, Any]) -> list[str]:
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(self._q[query], parameters)).fetchall()
        return [row[0] for row in rows]

    def _row(self, message_id: str, draft: Draft) -> dict[str, Any]:
        sealed = {
            "headers": draft.headers,
            "callback": asdict(draft.callback) if draft.callback else None,
            "failure_callback": asdict(draft.failure_callback) if draft.failure_callback else None,
        }
        return {
            "id": message_id, "kind": draft.kind, "protocol": draft.protocol, "url": draft.url,
            "method": draft.method, "body": draft.body, "sealed": self._vault.seal(sealed), "label": draft.label,
            "retries_max": draft.retries_max, "retry_delay": draft.retry_delay, "timeout_ms": draft.timeout_ms,
            "final_status": list(draft.final_status), "final_errors": list(draft.final_errors),
            "error_field": draft.error_field, "on_unknown": draft.on_unknown, "caller_ip": draft.caller_ip,
            "delay_seconds": draft.delay_seconds,
        }  # fmt: skip

    def _claimed(self, row: dict[str, Any]) -> Claimed:
        opened = self._vault.open(row["sealed"])
        label = row.pop("label")
        return Claimed(
            **row
            | {
                "labels": () if label is None else (label,),
                "headers": opened["headers"],
                "callback": options_from(opened["callback"]),
                "failure_callback": options_from(opened["failure_callback"]),
                "final_status": tuple(row["final_status"]),
                "final_errors": tuple(row["final_errors"]),
            }
        )

    def _view(self, row: dict[str, Any]) -> MessageView:
        opened = self._vault.open(row["sealed"])
        same = (
            "id", "url", "method", "body", "retries_max", "created_at", "not_before", "state", "due_at", "retried",
            "retry_delay", "timeout_ms", "caller_ip",
        )  # fmt: skip
        return MessageView(
            **{name: row[name] for name in same},
            headers=opened["headers"],
            callback=options_from(opened["callback"]),
            failure_callback=options_from(opened["failure_callback"]),
            labels=() if row["label"] is None else (row["label"],),
        )

    def _letter(self, ending: Ending) -> dict[str, Any]:
        message = ending.message
        header: dict[str, list[str]] = {}
        for name, value in ending.answer.headers:
            header.setdefault(name, []).append(value)
        return {
            "id": ending.dlq_id, "message_id": message.id, "url": message.url, "method": message.method,
            "body": message.body, "sealed": message.sealed, "label": message.label,
            "retries_max": message.retries_max, "created_at": message.created_at,
            "response_status": ending.answer.status, "response_header": Jsonb(header),
            "response_body": ending.answer.body or (ending.answer.error or "").encode(),
        }  # fmt: skip


def dead_letter_id(now: datetime, message_id: str) -> str:
    """`<Unix ms>-<part of the message's id>`: sortable by time, as the vendor's are, and without a shared counter."""
    return f"{int(now.timestamp() * 1000)}-{message_id[-12:]}"
