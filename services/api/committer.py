"""Group commit: requests that come together are stored by one INSERT and one COMMIT, and answered after it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from prometheus_client import Histogram
from structlog.stdlib import BoundLogger

from services.api.problem import ProblemError
from services.api.row import Row, Stored
from services.api.store import Store

# One statement for so many rows and bytes at the most; what comes beyond waits for the next.
BATCH_ROWS_MAX = 500
BATCH_BYTES_MAX = 16 * 1024 * 1024
QUEUE_MAX = 2_000
ANSWER_TIMEOUT_SECONDS = 30.0


class Committer:
    """One thread that commits; `store` waits for it. With nothing to join, a row goes alone and at once."""

    def __init__(self, store: Store, log: BoundLogger, batch_size: Histogram) -> None:
        self._store = store
        self._log = log
        self._batch_size = batch_size
        self._queue: queue.Queue[tuple[Row, Future[Stored]] | None] = queue.Queue(QUEUE_MAX)
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
        future: Future[Stored] = Future()
        try:
            self._queue.put_nowait((row, future))
            return future.result(ANSWER_TIMEOUT_SECONDS)
        except queue.Full:
            raise ProblemError(503, "too many submissions at once; try again", Retry_After="1") from None
        except TimeoutError:
            raise ProblemError(503, "the database did not answer in time; use an Idempotency-Key to try again safely",
                               Retry_After="5") from None  # fmt: skip

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._batch_size.observe(len(batch))
            try:
                self._answer(batch, self._store.insert([row for row, _ in batch]))
            except Exception as error:  # noqa: BLE001  one row's fault must not be the others'
                if len(batch) == 1:
                    batch[0][1].set_exception(error)
                    continue
                self._log.warning("batch_split", rows=len(batch), error=type(error).__name__)
                for pair in batch:
                    self._alone(pair)

    def _next_batch(self) -> list[tuple[Row, Future[Stored]]] | None:
        first = self._queue.get()
        if first is None:
            return None
        batch, size = [first], len(first[0].body)
        while len(batch) < BATCH_ROWS_MAX and size < BATCH_BYTES_MAX:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                self._queue.put(None)
                break
            batch.append(following)
            size += len(following[0].body)
        return batch

    def _alone(self, pair: tuple[Row, Future[Stored]]) -> None:
        try:
            self._answer([pair], self._store.insert([pair[0]]))
        except Exception as error:  # noqa: BLE001  goes to the one who asked
            pair[1].set_exception(error)

    def _answer(self, batch: Sequence[tuple[Row, Future[Stored]]], stored: Sequence[Stored]) -> None:
        for (_, future), answer in zip(batch, stored, strict=True):
            future.set_result(answer)
