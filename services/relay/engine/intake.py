"""What is published at the same time is committed together: a transaction for all who wait, again and again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.relay.message import Draft
from services.relay.store.messages import Accepted, Messages, UnstorableError

# So much goes into one transaction at the most; who comes later waits for the next one.
BATCH_MAX = 1000
BATCH_BYTES_MAX = 32 * 1024 * 1024
# While the database commits one the next is put together; more would only make each smaller.
TRANSACTIONS = 2


@dataclass(frozen=True)
class _Asked:
    drafts: Sequence[Draft]
    answer: asyncio.Future[list[Accepted]]

    @property
    def size_bytes(self) -> int:
        return sum(draft.inline_bytes for draft in self.drafts)


class Intake:
    """`accept` for the routes; `run` is the loop that commits. `wake` is told the seconds until the soonest is due."""

    def __init__(self, messages: Messages, *, deduplication_seconds: float, wake: Callable[[float], None]) -> None:
        self._messages = messages
        self._deduplication_seconds = deduplication_seconds
        self._wake = wake
        # Bounded by the requests that are open: each waits for its answer.
        self._asked: deque[_Asked] = deque()
        self._arrived = asyncio.Event()

    async def accept(self, drafts: Sequence[Draft]) -> list[Accepted]:
        """Committed when this returns; one answer each, in order. Raises what the database raised: nothing is kept then."""
        if not drafts:
            return []
        asked = _Asked(drafts, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        self._arrived.set()
        return await asked.answer

    async def run_once(self) -> int:
        """Wait for drafts and commit all that are there; how many."""
        batch = await self._batch()
        return await self._commit(batch)

    async def _commit(self, batch: Sequence[_Asked]) -> int:
        drafts = [draft for asked in batch for draft in asked.drafts]
        try:
            accepted = iter(await self._messages.accept(drafts, self._deduplication_seconds))
        except UnstorableError as error:
            if len(batch) == 1:
                return _refuse(batch, error)
            # Whose it is must hear of it, and nobody else.
            return sum([await self._commit([asked]) for asked in batch])
        except Exception as error:  # noqa: BLE001  it is the askers' to hear; the loop goes on with the next
            return _refuse(batch, error)
        except asyncio.CancelledError:
            for asked in batch:
                asked.answer.cancel()
            raise
        for asked in batch:
            answers = [next(accepted) for _ in asked.drafts]
            if not asked.answer.done():
                asked.answer.set_result(answers)
        self._wake(min(draft.delay_seconds for draft in drafts))
        return len(drafts)

    async def run(self) -> None:
        """Commit until cancelled, several transactions at once; who waits then hears of it as a fault."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(TRANSACTIONS):
                    group.create_task(self._commit_forever())
        finally:
            while self._asked:
                self._asked.popleft().answer.cancel()

    async def _commit_forever(self) -> None:
        while True:
            await self.run_once()

    async def _batch(self) -> list[_Asked]:
        while not self._asked:
            self._arrived.clear()
            await self._arrived.wait()
        batch = [self._asked.popleft()]
        count, size = len(batch[0].drafts), batch[0].size_bytes
        while self._asked:
            count += len(self._asked[0].drafts)
            size += self._asked[0].size_bytes
            if count > BATCH_MAX or size > BATCH_BYTES_MAX:
                break
            batch.append(self._asked.popleft())
        return batch


def _refuse(batch: Sequence[_Asked], error: Exception) -> int:
    for asked in batch:
        if not asked.answer.done():
            asked.answer.set_exception(error)
    return 0
