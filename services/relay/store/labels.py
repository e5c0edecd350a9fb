"""What the relay has under a label: whether a message is under way, and dead letters of callbacks. Read only."""

from __future__ import annotations

from collections.abc import Sequence

from services.relay.store.database import Database, queries


class Labels:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._q = queries("labels")

    async def live(self, labels: Sequence[str]) -> list[str]:
        """Those of `labels` with a message, or a callback of one, that has not ended."""
        found = await self._database.fetch(self._q["live"], {"labels": list(labels)})
        return [row["label"] for row in found]

    async def next(self, after: str, limit: int) -> list[str]:
        """The labels of messages that have not ended, from the first after `after` on."""
        found = await self._database.fetch(self._q["next"], {"after": after, "limit": limit})
        return [row["label"] for row in found]

    async def callback_letters(self, labels: Sequence[str], limit: int) -> dict[str, list[str]]:
        """Dead letters of callbacks, by those of `labels` that they carry."""
        wanted = set(labels)
        letters: dict[str, list[str]] = {}
        for row in await self._database.fetch(self._q["letters"], {"labels": list(labels), "limit": limit}):
            for label in wanted.intersection(row["labels"]):
                letters.setdefault(label, []).append(row["id"])
        return letters
