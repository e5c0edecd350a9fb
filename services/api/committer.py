"""Group commit: requests that arrive together are stored by one INSERT and one COMMIT, and are answered after it."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from prometheus_client import Histogram
from psycopg import OperationalError
from structlog.stdlib import BoundLogger

from services.api.problem import ProblemError
from services.api.row import Row, Stored

# The maximum number of rows and bytes in one statement; further rows wait for the next statement.
BATCH_ROWS_MAX = 500
BATCH_BYTES_MAX = 16 * 1024 * 1024
QUEUE_MAX = 2_000
ANSWER_TIMEOUT_SECONDS = 30.0
# A commit takes milliseconds. After this long the database counts as unavailable, and the api as not ready.
STUCK_SECONDS = 5.0


class Committer:
    """One thread that commits with `insert`; callers wait for it. A row that arrives alone is committed at once."""

    def __init__(
        self,
        insert: Callable[[Sequence[Row]], Sequence[Stored]],
        log: BoundLogger,
        batch_size: Histogram,
        *,
        queue_max: int = QUEUE_MAX,
        answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS,
    ) -> None:
        self._insert = insert
        self._log = log
        self._queue_max = queue_max
        self._answer_timeout_seconds = answer_timeout_seconds
        self._batch_size = batch_size
        # A get or a put is a single call in C; queue.Queue takes a lock and a condition in Python for each.
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def start(self) -> Committer:
        self._thread.start()
        return self

    def stop(self, seconds: float = ANSWER_TIMEOUT_SECONDS) -> None:
        """Commit the queued rows and stop; wait up to `seconds`."""
        self._queue.put(None)
        self._thread.join(seconds)

    def store(self, row: Row) -> Stored:
        """Commit one row. Raises `ProblemError` 503 if the queue is full or the database does not commit in time."""
        waiting = self._enqueue(_Blocked(row, self._deadline()))
        if not waiting.answered.acquire(timeout=self._answer_timeout_seconds):
            raise _late()
        return waiting.result()

    async def store_async(self, row: Row) -> Stored:
        """`store` for the event loop: it blocks no thread while it waits."""
        loop = asyncio.get_running_loop()
        waiting = self._enqueue(_Awaiting(row, self._deadline(), loop))
        timer = loop.call_later(self._answer_timeout_seconds, waiting.wake)
        try:
            await waiting.future
        finally:
            timer.cancel()
        return waiting.result()

    def waiting(self) -> int:
        """Return the number of rows that are not yet part of a batch."""
        return self._queue.qsize()

    def fault(self) -> str | None:
        """Return the reason why rows are not committed, or None if they are."""
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
            raise ProblemError(503, "too many submissions at once; try again", Retry_After="1")
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

    def _commit(self, batch: list[_Waiting]) -> None:
        # A client that received a 503 must not find its row stored a minute later.
        batch = [waiting for waiting in batch if waiting.deadline > time.monotonic()]
        if not batch:
            return
        self._batch_size.observe(len(batch))
        try:
            stored = self._insert([waiting.row for waiting in batch])
        except Exception as error:  # noqa: BLE001  a fault of one row must not affect the others
            if len(batch) == 1 or isinstance(error, OperationalError):
                _settle(batch, [error] * len(batch))
                return
            self._log.warning("batch_split", rows=len(batch), error=type(error).__name__)
            for waiting in batch:
                self._commit([waiting])
        else:
            _settle(batch, stored)

    def _next_batch(self) -> list[_Waiting] | None:
        first = self._queue.get()
        if first is None:
            return None
        batch, size = [first], len(first.row.body)
        while len(batch) < BATCH_ROWS_MAX and size < BATCH_BYTES_MAX:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                self._queue.put(None)
                break
            batch.append(following)
            size += len(following.row.body)
        return batch


class _Waiting:
    """A row, its deadline (monotonic seconds), and its result."""

    __slots__ = ("deadline", "found", "row")

    def __init__(self, row: Row, deadline: float) -> None:
        self.row = row
        self.deadline = deadline
        self.found: Stored | Exception | None = None

    def result(self) -> Stored:
        """Return the result. Raises `ProblemError` 503 if there is none, and any exception of the commit."""
        if self.found is None:
            raise _late()
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


class _Blocked(_Waiting):
    """A row for which a thread waits. It uses a bare lock: a Future needs a condition and two more locks."""

    __slots__ = ("answered",)

    def __init__(self, row: Row, deadline: float) -> None:
        super().__init__(row, deadline)
        self.answered = threading.Lock()
        self.answered.acquire()


class _Awaiting(_Waiting):
    """A row for which a task of `loop` waits."""

    __slots__ = ("future", "loop")

    def __init__(self, row: Row, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(row, deadline)
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


W = TypeVar("W", bound=_Waiting)


def _settle(batch: Sequence[_Waiting], found: Sequence[Stored | Exception]) -> None:
    """Set the result of each row.
    The tasks of one event loop are woken together, because waking a loop is a system call.
    """
    awaiting: list[_Awaiting] = []
    for waiting, answer in zip(batch, found, strict=True):
        waiting.found = answer
        if isinstance(waiting, _Awaiting):
            awaiting.append(waiting)
        elif isinstance(waiting, _Blocked):
            waiting.answered.release()
    if awaiting:
        with suppress(RuntimeError):  # the loop is closed: no task waits any more
            awaiting[0].loop.call_soon_threadsafe(_wake, awaiting)


def _wake(awaiting: Sequence[_Awaiting]) -> None:
    for waiting in awaiting:
        waiting.wake()


def _late() -> ProblemError:
    why = "the database did not respond in time; use an Idempotency-Key to try again safely"
    return ProblemError(503, why, Retry_After="5")
