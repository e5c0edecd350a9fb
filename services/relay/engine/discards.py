"""Stored bodies that nobody needs any more, removed beside what goes on: whoever is cancelled has no time for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import psycopg

from services.relay.store.chunks import Chunks

# Pieces of what did not end well are removed within this, or by the janitor.
DISCARD_SECONDS = 30.0
DISCARD_TRIES = 5
DISCARD_PAUSE_SECONDS = 2.0


class Discards:
    """`add` does not wait; what fails is tried a few times more."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, keys: Sequence[str]) -> None:
        """Remove these bodies, unless a message, dead letter or kept answer names them."""
        if keys:
            task = asyncio.create_task(self._remove(keys))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _remove(self, keys: Sequence[str]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                for _ in range(DISCARD_TRIES):
                    try:
                        await self._chunks.release(keys)
                    except psycopg.Error:
                        await asyncio.sleep(DISCARD_PAUSE_SECONDS)
                    else:
                        return
