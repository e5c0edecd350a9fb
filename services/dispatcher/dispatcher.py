"""Reads changes, has the outbox act on them, and commits the offsets only after that: at least once, never lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata
from structlog.stdlib import BoundLogger

from services.dispatcher.backoff import backoff_seconds
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.outbox import Outbox
from services.dispatcher.relay import UnavailableError
from tidings.change import (
    ContentRemoval,
    ResultChange,
    SubmissionChange,
    UndecodableChangeError,
    decode_removal,
    decode_result,
    decode_submission,
)
from tidings.dead_letters import dead_letter
from tidings.kafka_transactions import Outgoing
from tidings.log import fault
from tidings.progress import Progress
from tidings.topics import REMOVALS, RESULTS, SUBMISSIONS

POLL_SECONDS = 0.5
# Postgres hands a commit to Debezium before other transactions see it; with a synchronous standby a round trip before, or
# for as long as the standby is away. What is not seen after so long is told aloud instead of waited for.
UNKNOWN_SECONDS = 30.0
DEAD_LETTER_TIMEOUT_SECONDS = 15
# A batch that fails for a reason nobody foresaw is tried whole so often, over about a second, before its changes are
# tried one by one.
UNEXPECTED_MAX = 3


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
        progress: Progress,
        metrics: DispatcherMetrics,
        log: BoundLogger,
    ) -> None:
        self._consumer = consumer
        self._producer = producer
        self._outbox = outbox
        self._clock = clock
        self._jitter = jitter
        self._progress = progress
        self._metrics = metrics
        self._log = log
        self._failures = 0
        self._unexpected = 0
        self._resume_at = 0.0
        # Of the batch in hand alone: when the first of its submissions was not found, and those that were sent.
        self._missed_at: float | None = None
        self._sent: set[str] = set()

    def run_once(self) -> int:
        """Handle what is there, waiting up to half a second for it; answers how many changes were read."""
        if self._failures and self._clock() >= self._resume_at:
            self._consumer.resume(*self._consumer.paused())
        batch = self._consumer.poll(timeout_ms=int(POLL_SECONDS * 1000))
        if not batch:
            return 0
        self._progress.holds("it is being handed over")
        records = [record for rows in batch.values() for record in rows]
        try:
            self._handle_any(records)
        except UnavailableError as error:
            self._put_back(batch, error)
            return 0
        self._consumer.commit(
            {partition: OffsetAndMetadata(rows[-1].offset + 1, "", -1) for partition, rows in batch.items()}
        )
        self._progress.settled()
        if self._failures:
            self._log.info("available_again", failures=self._failures)
        self._failures = self._unexpected = 0
        self._missed_at = None
        self._sent.clear()
        self._metrics.waiting.set(0)
        return len(records)

    def _handle_any(self, records: Sequence[Any]) -> None:
        """`_handle`, and no exception may make of one change a batch that fails for ever."""
        try:
            if self._unexpected < UNEXPECTED_MAX:
                self._handle(records)
            else:
                self._handle_each(records)
        except (UnavailableError, KafkaError):
            raise
        except Exception as error:
            self._unexpected += 1
            self._log.error("unexpected", exc_info=error, changes=len(records))
            raise UnavailableError(f"unexpected: {fault(error)}") from error

    def _handle_each(self, records: Sequence[Any]) -> None:
        """Handle the changes one by one, and put aside those that fail, if others do not.

        When none succeeds, the fault is ours or our neighbours', and the changes wait until it is mended.
        """
        failed: list[tuple[Any, Exception]] = []
        for record in records:
            try:
                self._handle([record])
            except (UnavailableError, KafkaError):
                raise
            except Exception as error:  # noqa: BLE001  whatever it is, the next change is not to wait for it
                failed.append((record, error))
        if len(failed) == len(records):
            raise failed[0][1]
        for record, cause in failed:
            self._dead_letter(record, f"cannot be handled: {fault(cause)}")

    def _handle(self, records: Sequence[Any]) -> None:
        # Submissions first: an end in the same batch then finds the message at the relay, or, when the end was
        # committed before we asked for the body, the submission marked as ended.
        submitted: dict[str, tuple[SubmissionChange, Any]] = {}
        ends: list[ResultChange] = []
        removals: list[ContentRemoval] = []
        for record in records:
            try:
                if record.topic == SUBMISSIONS and (change := decode_submission(record.value)):
                    submitted.setdefault(str(change.id), (change, record))
                elif record.topic == RESULTS and (end := decode_result(record.value)):
                    ends.append(end)
                elif record.topic == REMOVALS and (removal := decode_removal(record.value)):
                    removals.append(removal)
            except UndecodableChangeError as error:
                self._dead_letter(record, str(error))
            except Exception as error:  # noqa: BLE001  decoding asks nobody: it would fail again each time
                self._dead_letter(record, fault(error))
        unknown = self._send([change for id_, (change, _) in submitted.items() if id_ not in self._sent])
        if ends:
            self._outbox.end(ends)
        self._outbox.remove_contents(removals)
        if unknown:
            self._miss({id_: submitted[id_][1] for id_ in sorted(unknown)})

    def _send(self, changes: Sequence[SubmissionChange]) -> set[str]:
        unknown = self._outbox.send(changes) if changes else set()
        self._sent |= {str(change.id) for change in changes} - unknown
        return unknown

    def _miss(self, records: Mapping[str, Any]) -> None:
        """A change that outran its commit is asked for again: raises `UnavailableError`. In the end it is put aside."""
        now = self._clock()
        if self._missed_at is None:
            self._missed_at = now
        if now - self._missed_at < UNKNOWN_SECONDS:
            raise UnavailableError(f"the api does not know {len(records)} submission(s) yet")
        for id_, record in records.items():
            self._metrics.unknown.inc()
            self._log.error("submission_unknown", submission_id=id_, waited_seconds=UNKNOWN_SECONDS)
            self._put_aside(record, f"the api does not know the submission after {UNKNOWN_SECONDS:g} s")

    def _dead_letter(self, record: Any, reason: str) -> None:
        self._log.error("change_undecodable", topic=record.topic, offset=record.offset, reason=reason)
        self._metrics.dead_letters.inc()
        self._put_aside(record, reason)

    def _put_aside(self, record: Any, reason: str) -> None:
        try:
            self._produce(dead_letter(record, reason))
        except KafkaError as error:
            if error.retriable:
                raise
            self._produce(dead_letter(record, f"{reason} (without its value: {type(error).__name__})", bare=True))

    def _produce(self, letter: Outgoing) -> None:
        sent = self._producer.send(letter.topic, key=letter.key, value=letter.value, headers=list(letter.headers))
        sent.get(timeout=DEAD_LETTER_TIMEOUT_SECONDS)

    def _put_back(self, batch: Mapping[Any, Sequence[Any]], error: UnavailableError) -> None:
        self._failures += 1
        seconds = backoff_seconds(self._failures, self._jitter(), error.retry_after_seconds)
        self._resume_at = self._clock() + seconds
        for partition, rows in batch.items():
            self._consumer.seek(partition, rows[0].offset)
        self._consumer.pause(*self._consumer.assignment())
        self._progress.holds(str(error))
        self._metrics.unavailable.inc()
        self._metrics.waiting.set(1)
        self._log.warning("unavailable", error=str(error), retry_in_seconds=round(seconds, 2), failures=self._failures)
