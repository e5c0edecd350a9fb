"""Reads changes, has the outbox act on them, and commits the offsets only after that: at least once, never lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka.structs import OffsetAndMetadata
from structlog.stdlib import BoundLogger

from services.dispatcher.backoff import backoff_seconds
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.outbox import Outbox
from services.dispatcher.relay import UnavailableError
from tidings.change import ResultChange, UndecodableChangeError, decode_result, decode_submission
from tidings.topics import DEAD_LETTERS, RESULTS, SUBMISSIONS

POLL_SECONDS = 0.5
DEAD_LETTER_TIMEOUT_SECONDS = 15


class Dispatcher:
    """`run_once` handles one batch. While relay or api do not answer, partitions are paused and polled all the same,
    so that the group keeps this member and nothing is read twice over."""

    def __init__(
        self,
        consumer: Any,
        producer: Any,
        outbox: Outbox,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        metrics: DispatcherMetrics,
        log: BoundLogger,
    ) -> None:
        self._consumer = consumer
        self._producer = producer
        self._outbox = outbox
        self._clock = clock
        self._jitter = jitter
        self._metrics = metrics
        self._log = log
        self._failures = 0
        self._resume_at = 0.0

    def run_once(self) -> int:
        """Handle what is there, waiting up to half a second for it; answers how many changes were read."""
        if self._failures and self._clock() >= self._resume_at:
            self._consumer.resume(*self._consumer.paused())
        batch = self._consumer.poll(timeout_ms=int(POLL_SECONDS * 1000))
        if not batch:
            return 0
        try:
            self._handle([record for rows in batch.values() for record in rows])
        except UnavailableError as error:
            self._put_back(batch, error)
            return 0
        self._consumer.commit(
            {partition: OffsetAndMetadata(rows[-1].offset + 1, "", -1) for partition, rows in batch.items()}
        )
        if self._failures:
            self._log.info("available_again", failures=self._failures)
        self._failures = 0
        self._metrics.waiting.set(0)
        return sum(map(len, batch.values()))

    def _handle(self, records: Sequence[Any]) -> None:
        # Submissions first: an end in the same batch then finds the message at the relay, or, when the end was
        # committed before we asked for the body, the submission marked as ended.
        ids: list[str] = []
        ends: list[ResultChange] = []
        for record in records:
            try:
                if record.topic == SUBMISSIONS and (change := decode_submission(record.value)):
                    ids.append(str(change.id))
                elif record.topic == RESULTS and (end := decode_result(record.value)):
                    ends.append(end)
            except UndecodableChangeError as error:
                self._dead_letter(record, str(error))
        if ids:
            self._outbox.send(ids)
        if ends:
            self._outbox.end(ends)

    def _dead_letter(self, record: Any, reason: str) -> None:
        self._log.error("change_undecodable", topic=record.topic, offset=record.offset, reason=reason)
        headers = [
            ("reason", reason[:1000].encode()),
            ("source", f"{record.topic}/{record.partition}/{record.offset}".encode()),
        ]
        sent = self._producer.send(DEAD_LETTERS, key=record.key, value=record.value, headers=headers)
        sent.get(timeout=DEAD_LETTER_TIMEOUT_SECONDS)
        self._metrics.dead_letters.inc()

    def _put_back(self, batch: Mapping[Any, Sequence[Any]], error: UnavailableError) -> None:
        self._failures += 1
        seconds = backoff_seconds(self._failures, self._jitter(), error.retry_after_seconds)
        self._resume_at = self._clock() + seconds
        for partition, rows in batch.items():
            self._consumer.seek(partition, rows[0].offset)
        self._consumer.pause(*self._consumer.assignment())
        self._metrics.unavailable.inc()
        self._metrics.waiting.set(1)
        self._log.warning("unavailable", error=str(error), retry_in_seconds=round(seconds, 2), failures=self._failures)
