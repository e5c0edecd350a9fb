"""Removal of stored bodies in the background: a cancelled task has no time to remove them itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import psycopg

from services.relay.store.chunks import Chunks

# The pieces of a failed transfer are removed within this time, or later by the janitor.
DISCARD_SECONDS = 30.0
DISCARD_TRIES = 5
DISCARD_PAUSE_SECONDS = 2.0


class Discards:
    """`add` does not wait. A failed removal is tried a few more times."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, keys: Sequence[str]) -> None:
        """Remove these bodies, unless a message, dead letter or kept answer refers to them."""
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
