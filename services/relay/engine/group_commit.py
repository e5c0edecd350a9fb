"""Group commit: concurrent publishes share one transaction."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.relay.message import Draft
from services.relay.store.messages import Accepted, Messages, UnstorableError

# The most messages of one transaction. Later ones wait for the next.
BATCH_MAX = 1000
BATCH_BYTES_MAX = 32 * 1024 * 1024
# While one transaction commits, the next is collected. More of them would only make each smaller.
TRANSACTIONS = 2


@dataclass(frozen=True)
class _Request:
    drafts: Sequence[Draft]
    answer: asyncio.Future[list[Accepted]]

    @property
    def size_bytes(self) -> int:
        return sum(draft.inline_bytes for draft in self.drafts)


class GroupCommit:
    """The api calls `accept`; `run` is the loop that commits. `wake` receives the seconds until the earliest message is
    due.
    """

    def __init__(self, messages: Messages, *, deduplication_seconds: float, wake: Callable[[float], None]) -> None:
        self._messages = messages
        self._deduplication_seconds = deduplication_seconds
        self._wake = wake
        # Bounded by the open requests: each waits for its answer.
        self._requests: deque[_Request] = deque()
        self._arrived = asyncio.Event()

    async def accept(self, drafts: Sequence[Draft]) -> list[Accepted]:
        """Commit the drafts and return one answer for each, in order. Raises what the database raised; then none is
        kept.
        """
        if not drafts:
            return []
        request = _Request(drafts, asyncio.get_running_loop().create_future())
        self._requests.append(request)
        self._arrived.set()
        return await request.answer

    async def run_once(self) -> int:
        """Wait for drafts and commit all that have arrived. Returns how many. If it is cancelled, so are the requests
        that have no answer yet.
        """
        batch = await self._batch()
        try:
            return await self._commit(batch)
        finally:
            for request in batch:
                request.answer.cancel()  # does nothing to one that is done

    async def _commit(self, batch: Sequence[_Request]) -> int:
        drafts = [draft for request in batch for draft in request.drafts]
        try:
            accepted = iter(await self._messages.accept(drafts, self._deduplication_seconds))
        except UnstorableError as error:
            if len(batch) == 1:
                return _refuse(batch, error)
            # Only the request that caused the error must receive it.
            return sum([await self._commit([request]) for request in batch])
        except Exception as error:  # noqa: BLE001  the requests receive it; the loop continues
            return _refuse(batch, error)
        for request in batch:
            answers = [next(accepted) for _ in request.drafts]
            if not request.answer.done():
                request.answer.set_result(answers)
        self._wake(min(draft.delay_seconds for draft in drafts))
        return len(drafts)

    async def run(self) -> None:
        """Commit until cancelled, with several transactions in parallel. Requests that still wait then receive an
        error.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(TRANSACTIONS):
                    group.create_task(self._commit_forever())
        finally:
            while self._requests:
                self._requests.popleft().answer.cancel()

    async def _commit_forever(self) -> None:
        while True:
            await self.run_once()

    async def _batch(self) -> list[_Request]:
        while not self._requests:
            self._arrived.clear()
            await self._arrived.wait()
        batch = [self._requests.popleft()]
        count, size = len(batch[0].drafts), batch[0].size_bytes
        while self._requests:
            count += len(self._requests[0].drafts)
            size += self._requests[0].size_bytes
            if count > BATCH_MAX or size > BATCH_BYTES_MAX:
                break
            batch.append(self._requests.popleft())
        return batch


def _refuse(batch: Sequence[_Request], error: Exception) -> int:
    for request in batch:
        if not request.answer.done():
            request.answer.set_exception(error)
    return 0
