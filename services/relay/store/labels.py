"""What the relay holds under a label: whether a message has not ended, and dead letters of callbacks. Reads only."""

from __future__ import annotations

from collections.abc import Sequence

from services.relay.store.database import Database, queries


class Labels:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._q = queries("labels")

    async def held(self, labels: Sequence[str], letters_max: int) -> tuple[list[str], dict[str, list[str]]]:
        """In one snapshot: those of `labels` with a message, or a callback of one, that has not ended; and, by label,
        the dead letters of callbacks that carry it.
        """
        wanted, live = set(labels), list[str]()
        dead_letters: dict[str, list[str]] = {}
        values = {"labels": list(labels), "letters_max": letters_max}
        for row in await self._database.fetch(self._q["held"], values):
            if row["dlq_id"] is None:
                live.append(row["label"])
                continue
            for label in wanted.intersection(row["labels"]):
                dead_letters.setdefault(label, []).append(row["dlq_id"])
        return live, dead_letters

    async def next(self, after: str, limit: int) -> list[str]:
        """The labels of messages that have not ended, starting with the first after `after`."""
        found = await self._database.fetch(self._q["next"], {"after": after, "limit": limit})
        return [row["label"] for row in found]
