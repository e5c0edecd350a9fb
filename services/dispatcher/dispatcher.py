"""Reads changes, has the outbox act on them, and commits the offsets only after that: at least once, never lost. Which
changes one object reads is its consumer's affair: removals of contents have one of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata
from structlog.stdlib import BoundLogger

from services.dispatcher.backoff import backoff_seconds
from services.dispatcher.letters import Letters
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.outbox import Outbox
from services.dispatcher.relay import UnavailableError
from services.dispatcher.unknown import UNKNOWN_SECONDS, Unknown, Unknowns
from tidings.contract.change import (
    ContentRemoval,
    ResultChange,
    SubmissionChange,
    UndecodableChangeError,
    decode_removal,
    decode_result,
    decode_submission,
)
from tidings.contract.topics import REMOVALS, RESULTS, SUBMISSIONS
from tidings.process.log import fault
from tidings.process.progress import Progress

POLL_SECONDS = 0.5
# While a submission is waited for that the api does not know yet.
POLL_SECONDS_MIN = 0.1
# A batch that fails for a reason nobody foresaw is tried whole so often, over about a second, before its changes are
# tried one by one.
UNEXPECTED_MAX = 3


class FullError(UnavailableError):
    """More submissions are unknown than are waited for at once."""


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
        self._letters = Letters(producer)
        self._outbox = outbox
        self._clock = clock
        self._jitter = jitter
        self._progress = progress
        self._metrics = metrics
        self._log = log
        self._failures = 0
        self._unexpected = 0
        # A failure other than that more submissions are unknown than are waited for: it says nothing of these.
        self._outage = False
        self._resume_at = 0.0
        # Of the batch in hand alone: those that were sent.
        self._sent: set[str] = set()
        self._unknowns = Unknowns()
        # What was put back, or is to be read from there again, and was not handled since.
        self._batch_waits = False
        self._rewound: dict[Any, int] = {}
        # Up to where each partition is handled but for the unknown, and committed.
        self._handled: dict[Any, int] = {}
        self._committed: dict[Any, int] = {}

    def run_once(self) -> int:
        """Handle what is there, waiting up to half a second for it; answers how many changes were read."""
        due = self._clock() >= self._resume_at
        if self._failures and due:
            self._consumer.resume(*self._consumer.paused())
        seconds = POLL_SECONDS_MIN if len(self._unknowns) else POLL_SECONDS
        batch = self._consumer.poll(timeout_ms=int(seconds * 1000))
        self._keep_to(self._consumer.assignment())
        asked = self._unknowns.to_ask(self._clock()) if due else []
        if not batch and not asked:
            return 0
        records = [record for rows in batch.values() for record in rows]
        if records:
            self._progress.holds("it is being handed over")
        try:
            self._ask_again(asked)
            self._handle_any(records)
        except UnavailableError as error:
            self._put_back(batch, error)
            return 0
        self._handled |= {partition: rows[-1].offset + 1 for partition, rows in batch.items()}
        self._commit()
        if records or not self._batch_waits:
            self._well()
        return len(records)

    def _well(self) -> None:
        """All that was read is handled, but for what the api does not know."""
        self._progress.settled()
        if self._failures:
            self._log.info("available_again", failures=self._failures)
        self._outage_ended()
        self._failures = self._unexpected = 0
        self._batch_waits = False
        self._sent.clear()
        self._metrics.waiting.set(0)

    def _outage_ended(self) -> None:
        if self._outage:
            self._unknowns.begin_anew(self._clock())
        self._outage = False

    def _keep_to(self, assigned: set[Any]) -> None:
        """Whoever reads the other partitions now begins where we committed, before what is unknown."""
        self._unknowns.forget(but=assigned)
        self._handled = {partition: offset for partition, offset in self._handled.items() if partition in assigned}
        self._committed = {partition: offset for partition, offset in self._committed.items() if partition in assigned}

    def _commit(self) -> None:
        floors = self._unknowns.floors()
        upto = {partition: min(offset, floors.get(partition, offset)) for partition, offset in self._handled.items()}
        moved = {partition: offset for partition, offset in upto.items() if self._committed.get(partition) != offset}
        if moved:
            self._consumer.commit({part: OffsetAndMetadata(offset, "", -1) for part, offset in moved.items()})
            self._committed |= moved

    def _ask_again(self, asked: Sequence[Unknown]) -> None:
        """For those that the api did not know. Raises `UnavailableError`."""
        if not asked:
            return
        try:
            unknown = self._outbox.send([one.change for one in asked])
        except (UnavailableError, KafkaError):
            raise
        except Exception as error:
            self._unexpected += 1
            self._log.error("unexpected", exc_info=error, changes=len(asked))
            self._read_again()
            raise UnavailableError(f"unexpected: {fault(error)}") from error
        self._outage_ended()
        # A batch that waits may hold them: what is settled here is not asked for again.
        self._sent |= {one.id for one in asked} - unknown
        for one in self._unknowns.still(asked, unknown, self._clock()):
            self._metrics.unknown.inc()
            self._log.error("submission_unknown", submission_id=one.id, waited_seconds=UNKNOWN_SECONDS)
            self._sent.add(one.id)
            self._letters.put_aside(one.record, f"the api does not know the submission after {UNKNOWN_SECONDS:g} s")
        self._metrics.unknown_waiting.set(len(self._unknowns))

    def _read_again(self) -> None:
        """From the first unknown on, so that whichever of them fails is put aside as any change that fails."""
        self._rewound = self._unknowns.floors()
        self._handled |= self._rewound
        self._unknowns.clear()

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
        new = [id_ for id_ in submitted if id_ not in self._sent and id_ not in self._unknowns]
        unknown = self._outbox.send([submitted[id_][0] for id_ in new]) if new else set()
        self._sent |= set(new) - unknown
        if ends:
            self._outbox.end(ends)
        if removals:
            self._outbox.remove_contents(removals)
        self._wait_for([submitted[id_] for id_ in sorted(unknown)])

    def _wait_for(self, unknown: Sequence[tuple[SubmissionChange, Any]]) -> None:
        """Changes that outran their commits are asked for again. Raises `FullError` when there are too many."""
        now = self._clock()
        kept = [self._unknowns.add(change, record, now) for change, record in unknown]
        self._metrics.unknown_waiting.set(len(self._unknowns))
        if not all(kept):
            raise FullError(f"the api does not know {len(self._unknowns)} submissions and more")

    def _dead_letter(self, record: Any, reason: str) -> None:
        self._log.error("change_undecodable", topic=record.topic, offset=record.offset, reason=reason)
        self._metrics.dead_letters.inc()
        self._letters.put_aside(record, reason)

    def _put_back(self, batch: Mapping[Any, Sequence[Any]], error: UnavailableError) -> None:
        self._failures += 1
        self._outage |= not isinstance(error, FullError)
        seconds = backoff_seconds(self._failures, self._jitter(), error.retry_after_seconds)
        self._resume_at = self._clock() + seconds
        for partition, offset in ({part: rows[0].offset for part, rows in batch.items()} | self._rewound).items():
            self._consumer.seek(partition, offset)
        self._batch_waits |= bool(batch or self._rewound)
        self._rewound = {}
        self._consumer.pause(*self._consumer.assignment())
        self._progress.holds(str(error))
        self._metrics.unavailable.inc()
        self._metrics.waiting.set(1)
        self._log.warning("unavailable", error=str(error), retry_in_seconds=round(seconds, 2), failures=self._failures)
