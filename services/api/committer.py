"""Group commit: requests that come together are stored by one INSERT and one COMMIT, and answered after it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from prometheus_client import Histogram
from structlog.stdlib import BoundLogger

from services.api.problem import ProblemError
from services.api.row import Row, Stored

# One statement for so many rows and bytes at the most; what comes beyond waits for the next.
BATCH_ROWS_MAX = 500
BATCH_BYTES_MAX = 16 * 1024 * 1024
QUEUE_MAX = 2_000
ANSWER_TIMEOUT_SECONDS = 30.0


class Committer:
    """One thread that commits with `insert`; `store` waits for it. With nothing to join, a row goes alone and at once."""

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
        # Its get and put are single calls in C, where queue.Queue takes a lock and a condition in Python for each.
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def start(self) -> Committer:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Commit what is queued, then end."""
        self._queue.put(None)
        self._thread.join(ANSWER_TIMEOUT_SECONDS)

    def store(self, row: Row) -> Stored:
        """Commit one row. Raises `ProblemError` 503 when there is no room or no database in time."""
        # Threads that look at the same moment may exceed the limit by as many as they are.
        if self.waiting() >= self._queue_max:
            raise ProblemError(503, "too many submissions at once; try again", Retry_After="1")
        waiting = _Waiting(row)
        self._queue.put(waiting)
        try:
            return waiting.answer(self._answer_timeout_seconds)
        except TimeoutError:
            raise ProblemError(503, "the database did not answer in time; use an Idempotency-Key to try again safely",
                               Retry_After="5") from None  # fmt: skip

    def waiting(self) -> int:
        """How many rows no batch has taken yet."""
        return self._queue.qsize()

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._batch_size.observe(len(batch))
            try:
                stored = self._insert([waiting.row for waiting in batch])
            except Exception as error:  # noqa: BLE001  one row's fault must not be the others'
                if len(batch) == 1:
                    batch[0].fail(error)
                    continue
                self._log.warning("batch_split", rows=len(batch), error=type(error).__name__)
                for waiting in batch:
                    self._alone(waiting)
            else:
                _answer(batch, stored)

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

    def _alone(self, waiting: _Waiting) -> None:
        try:
            stored = self._insert([waiting.row])
        except Exception as error:  # noqa: BLE001  goes to the one who asked
            waiting.fail(error)
        else:
            _answer([waiting], stored)


class _Waiting:
    """A row, and the thread that waits for its answer: a bare lock, as a Future costs a condition and two locks more."""

    __slots__ = ("_answered", "_found", "row")

    def __init__(self, row: Row) -> None:
        self.row = row
        self._found: Stored | Exception | None = None
        self._answered = threading.Lock()
        self._answered.acquire()

    def succeed(self, stored: Stored) -> None:
        self._found = stored
        self._answered.release()

    def fail(self, error: Exception) -> None:
        self._found = error
        self._answered.release()

    def answer(self, timeout_seconds: float) -> Stored:
        """What came. Raises `TimeoutError` when nothing did, and whatever the commit raised."""
        if not self._answered.acquire(timeout=timeout_seconds) or self._found is None:
            raise TimeoutError
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


def _answer(batch: Sequence[_Waiting], stored: Sequence[Stored]) -> None:
    for waiting, answer in zip(batch, stored, strict=True):
        waiting.succeed(answer)
