"""Removal of the stored contents of ended messages: dead letters, kept answers, and the log's copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection

from services.relay.store.database import Database, queries, rows


class Contents:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._q = queries("contents")
        self._release = queries("chunks")["release"]

    async def remove(self, labels: Sequence[str], message_ids: Sequence[str]) -> None:
        """Remove the contents of messages that carry one of `labels` and of those with these ids. A message that has
        not ended keeps its body.
        """
        labelled = {"labels": list(labels)}

        async def work(connection: AsyncConnection[Any]) -> None:
            dead_letters = await rows(connection, self._q["dead_letters"], labelled)
            ended = await rows(connection, self._q["ended"], labelled)
            ids = sorted({*message_ids, *(row["message_id"] for row in dead_letters), *(row["id"] for row in ended)})
            answers = await rows(connection, self._q["answers"], {"ids": ids})
            await connection.execute(self._q["messages"], labelled)
            await connection.execute(self._q["events"], {"ids": ids})
            found = [row["key"] for row in answers] + [row["body_key"] for row in ended]
            found += [row[name] for row in dead_letters for name in ("body_key", "response_key")]
            if keys := sorted({key for key in found if key is not None}):
                await connection.execute(self._release, {"keys": keys})

        await self._database.run(work)
