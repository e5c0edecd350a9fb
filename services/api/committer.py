"""Group commit: requests that arrive together are stored by one statement and one COMMIT, and are
answered after it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from prometheus_client import Histogram
from psycopg import OperationalError
from structlog.stdlib import BoundLogger

from services.api.problem import ProblemError

# The maximum number of items and bytes in one statement; further items wait for the next statement.
BATCH_ITEMS_MAX = 500
BATCH_BYTES_MAX = 16 * 1024 * 1024
QUEUE_MAX = 2_000
ANSWER_TIMEOUT_SECONDS = 30.0
# A commit takes milliseconds. After this long the database counts as unavailable, and the api as not ready.
STUCK_SECONDS = 5.0


class Item(Protocol):
    """Something to be stored."""

    @property
    def size_bytes(self) -> int: ...


ItemT = TypeVar("ItemT", bound=Item)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class CommitLimits:
    """`queue_max`: the items that may wait for a statement. `answer_timeout_seconds`: how long a caller waits."""

    queue_max: int = QUEUE_MAX
    answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS


DEFAULT_LIMITS = CommitLimits()


class Committer(Generic[ItemT, ResultT]):
    """One thread that commits with `insert`, which returns a result or an exception for each item; callers wait for it.
    An item that arrives alone is committed at once.
    """

    def __init__(
        self,
        insert: Callable[[Sequence[ItemT]], Sequence[ResultT | Exception]],
        log: BoundLogger,
        batch_size: Histogram,
        *,
        limits: CommitLimits = DEFAULT_LIMITS,
    ) -> None:
        self._insert = insert
        self._log = log
        self._queue_max = limits.queue_max
        self._answer_timeout_seconds = limits.answer_timeout_seconds
        self._batch_size = batch_size
        # A get or a put is a single call in C; queue.Queue takes a lock and a condition in Python for each.
        self._queue: queue.SimpleQueue[_Waiting[ItemT, ResultT] | None] = queue.SimpleQueue()
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self, seconds: float = ANSWER_TIMEOUT_SECONDS) -> None:
        """Commit the queued items and stop; wait up to `seconds`."""
        self._queue.put(None)
        self._thread.join(seconds)

    def store(self, item: ItemT) -> ResultT:
        """Commit one item. Raises `ProblemError` 503 if the queue is full or the database does not commit in time."""
        waiting = self._enqueue(_Blocked[ItemT, ResultT](item, self._deadline()))
        if not waiting.answered.acquire(timeout=self._answer_timeout_seconds):
            raise _late()
        return waiting.result()

    async def store_async(self, item: ItemT) -> ResultT:
        """`store` for the event loop: it blocks no thread while it waits."""
        loop = asyncio.get_running_loop()
        waiting = self._enqueue(_Awaiting[ItemT, ResultT](item, self._deadline(), loop))
        timer = loop.call_later(self._answer_timeout_seconds, waiting.wake)
        try:
            await waiting.future
        finally:
            timer.cancel()
        return waiting.result()

    def waiting(self) -> int:
        """Return the number of items that are not yet part of a batch."""
        return self._queue.qsize()

    def fault(self) -> str | None:
        """Return the reason why nothing is committed, or None if there is none."""
        if not self._thread.is_alive():
            return "the committer has ended"
        since = self._busy_since
        if since is not None and time.monotonic() - since > STUCK_SECONDS:
            return f"no commit for more than {STUCK_SECONDS:g} s"
        return None

    def _deadline(self) -> float:
        return time.monotonic() + self._answer_timeout_seconds

    def _enqueue(self, waiting: W) -> W:
        # Threads that check at the same time may together exceed the limit by their number.
        if self.waiting() >= self._queue_max:
            raise ProblemError(503, "too many requests wait for a commit; try again", Retry_After="1")
        self._queue.put(waiting)
        return waiting

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._busy_since = time.monotonic()
            try:
                self._commit(batch)
            except Exception as error:  # noqa: BLE001  waiting callers time out; the thread must continue
                self._log.error("commit_failed", error=type(error).__name__)
            self._busy_since = None

    def _commit(self, batch: list[_Waiting[ItemT, ResultT]]) -> None:
        # A client that received a 503 must not find its submission stored a minute later.
        batch = [waiting for waiting in batch if waiting.deadline > time.monotonic()]
        if not batch:
            return
        self._batch_size.observe(len(batch))
        try:
            stored = self._insert([waiting.item for waiting in batch])
        except Exception as error:  # noqa: BLE001  a fault of one item must not affect the others
            if len(batch) == 1 or isinstance(error, OperationalError):
                _settle(batch, [error] * len(batch))
                return
            self._log.warning("batch_split", items=len(batch), error=type(error).__name__)
            for waiting in batch:
                self._commit([waiting])
        else:
            _settle(batch, stored)

    def _next_batch(self) -> list[_Waiting[ItemT, ResultT]] | None:
        first = self._queue.get()
        if first is None:
            return None
        batch, size = [first], first.item.size_bytes
        while len(batch) < BATCH_ITEMS_MAX and size < BATCH_BYTES_MAX:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                self._queue.put(None)
                break
            batch.append(following)
            size += following.item.size_bytes
        return batch


class _Waiting(Generic[ItemT, ResultT]):
    """An item, its deadline (monotonic seconds), and its result."""

    __slots__ = ("deadline", "found", "item")

    def __init__(self, item: ItemT, deadline: float) -> None:
        self.item = item
        self.deadline = deadline
        self.found: ResultT | Exception | None = None

    def result(self) -> ResultT:
        """Return the result. Raises `ProblemError` 503 if there is none, and any exception of the commit."""
        if self.found is None:
            raise _late()
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


class _Blocked(_Waiting[ItemT, ResultT]):
    """An item for which a thread waits. It uses a bare lock: a Future needs a condition and two more locks."""

    __slots__ = ("answered",)

    def __init__(self, item: ItemT, deadline: float) -> None:
        super().__init__(item, deadline)
        self.answered = threading.Lock()
        self.answered.acquire()


class _Awaiting(_Waiting[ItemT, ResultT]):
    """An item for which a task of `loop` waits."""

    __slots__ = ("future", "loop")

    def __init__(self, item: ItemT, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(item, deadline)
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


W = TypeVar("W", bound=_Waiting[Any, Any])


def _settle(batch: Sequence[_Waiting[Any, Any]], found: Sequence[Any]) -> None:
    """Set the result of each item.
    The tasks of one event loop are woken together, because waking a loop is a system call.
    """
    awaiting: list[_Awaiting[Any, Any]] = []
    for waiting, answer in zip(batch, found, strict=True):
        waiting.found = answer
        if isinstance(waiting, _Awaiting):
            awaiting.append(waiting)
        elif isinstance(waiting, _Blocked):
            waiting.answered.release()
    if awaiting:
        with suppress(RuntimeError):  # the loop is closed: no task waits any more
            awaiting[0].loop.call_soon_threadsafe(_wake, awaiting)


def _wake(awaiting: Sequence[_Awaiting[Any, Any]]) -> None:
    for waiting in awaiting:
        waiting.wake()


def _late() -> ProblemError:
    why = "the database did not respond in time; use an Idempotency-Key to try again safely"
    return ProblemError(503, why, Retry_After="5")
