"""What is published at the same time is committed together: one transaction for all who wait, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.relay.message import Draft
from services.relay.store.messages import Accepted, Messages

# So much goes into one transaction at the most; who comes later waits for the next one.
BATCH_MAX = 1000
BATCH_BYTES_MAX = 32 * 1024 * 1024


@dataclass(frozen=True)
class _Asked:
    drafts: Sequence[Draft]
    answer: asyncio.Future[list[Accepted]]

    @property
    def size_bytes(self) -> int:
        return sum(len(draft.body) for draft in self.drafts)


class Intake:
    """`accept` for the routes; `run` is the loop that commits. `wake` is told the seconds until the soonest is due."""

    def __init__(self, messages: Messages, *, deduplication_seconds: float, wake: Callable[[float], None]) -> None:
        self._messages = messages
        self._deduplication_seconds = deduplication_seconds
        self._wake = wake
        # Bounded by the requests that are open: each waits for its answer.
        self._asked: asyncio.Queue[_Asked] = asyncio.Queue()
        self._held: _Asked | None = None

    async def accept(self, drafts: Sequence[Draft]) -> list[Accepted]:
        """Committed when this returns; one answer each, in order. Raises what the database raised: nothing is kept then."""
        if not drafts:
            return []
        asked = _Asked(drafts, asyncio.get_running_loop().create_future())
        self._asked.put_nowait(asked)
        return await asked.answer

    async def run_once(self) -> int:
        """Wait for drafts and commit all that are there; how many."""
        batch = await self._batch()
        drafts = [draft for asked in batch for draft in asked.drafts]
        try:
            accepted = iter(await self._messages.accept(drafts, self._deduplication_seconds))
        except Exception as error:  # noqa: BLE001  it is the askers' to hear; the loop goes on with the next
            for asked in batch:
                if not asked.answer.done():
                    asked.answer.set_exception(error)
            return 0
        for asked in batch:
            answers = [next(accepted) for _ in asked.drafts]
            if not asked.answer.done():
                asked.answer.set_result(answers)
        self._wake(min(draft.delay_seconds for draft in drafts))
        return len(drafts)

    async def run(self) -> None:
        """Commit until cancelled; who waits then hears of it as a fault."""
        try:
            while True:
                await self.run_once()
        finally:
            left = [] if self._held is None else [self._held]
            while not self._asked.empty():
                left.append(self._asked.get_nowait())
            for asked in left:
                asked.answer.cancel()

    async def _batch(self) -> list[_Asked]:
        batch = [self._held or await self._asked.get()]
        self._held = None
        count, size = len(batch[0].drafts), batch[0].size_bytes
        while not self._asked.empty():
            following = self._asked.get_nowait()
            count, size = count + len(following.drafts), size + following.size_bytes
            if count > BATCH_MAX or size > BATCH_BYTES_MAX:
                self._held = following
                break
            batch.append(following)
        return batch
