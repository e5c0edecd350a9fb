"""Reads changes, passes them to the sender, and only then commits the offsets: delivery is at least once.
The consumer determines which changes an object reads: removals of contents have an object of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from services.dispatcher.backoff import backoff_seconds
from services.dispatcher.dead_letters import DeadLetters
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.relay_client import UnavailableError
from services.dispatcher.sender import Sender
from services.dispatcher.timing import Timing
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
from tidings.process.telemetry import Telemetry

POLL_SECONDS = 0.5
# The poll interval while the dispatcher waits for a submission that the api does not know yet.
POLL_SECONDS_MIN = 0.1
# The number of times, over about a second, that a batch with an unexpected failure is retried as a whole. After that
# its changes are handled one by one.
UNEXPECTED_MAX = 3


class FullError(UnavailableError):
    """More submissions are unknown than the dispatcher can keep waiting at once."""


@dataclass(frozen=True)
class Connection:
    """One connection to Kafka: a consumer of changes, and a producer of dead letters."""

    consumer: Any
    producer: Any


class Dispatcher:
    """`run_once` handles one batch. While the relay or the api does not respond, the partitions are paused but still
    polled, so that the group keeps this member and no record is read twice.
    """

    def __init__(
        self,
        connection: Connection,
        sender: Sender,
        *,
        timing: Timing,
        progress: Progress,
        telemetry: Telemetry[DispatcherMetrics],
    ) -> None:
        self._consumer = connection.consumer
        self._dead_letters = DeadLetters(connection.producer)
        self._sender = sender
        self._clock = timing.clock
        self._jitter = timing.jitter
        self._progress = progress
        self._metrics = telemetry.metrics
        self._log = telemetry.log
        self._failures = 0
        self._unexpected = 0
        # True after any failure except `FullError`: during such a failure the api could not answer for the unknown
        # submissions.
        self._outage = False
        self._resume_at = 0.0
        # The submissions of the current batch that were sent.
        self._sent: set[str] = set()
        self._unknowns = Unknowns()
        # The offsets to which partitions were rewound, and whether a batch waits to be read again.
        self._batch_waits = False
        self._rewound: dict[Any, int] = {}
        # The offsets up to which each partition is handled, except for unknown submissions, and is committed.
        self._handled: dict[Any, int] = {}
        self._committed: dict[Any, int] = {}

    def run_once(self) -> int:
        """Handle the available changes, waiting up to half a second for them; return the number of changes read."""
        due = self._clock() >= self._resume_at
        if self._failures and due:
            self._consumer.resume(*self._consumer.paused())
        seconds = POLL_SECONDS_MIN if len(self._unknowns) else POLL_SECONDS
        batch = self._consumer.poll(timeout_ms=int(seconds * 1000))
        self._forget_other_partitions(self._consumer.assignment())
        unknown = self._unknowns.due(self._clock()) if due else []
        if not batch and not unknown:
            return 0
        records = [record for rows in batch.values() for record in rows]
        if records:
            self._progress.batch_waits("it is being sent")
        try:
            self._ask_again(unknown)
            self._handle_any(records)
        except UnavailableError as error:
            self._retry_later(batch, error)
            return 0
        self._handled |= {partition: rows[-1].offset + 1 for partition, rows in batch.items()}
        self._commit()
        if records or not self._batch_waits:
            self._succeeded()
        return len(records)

    def _succeeded(self) -> None:
        """Every change that was read is handled, except those of submissions that the api does not know."""
        self._progress.batch_committed()
        if self._failures:
            self._log.info("available_again", failures=self._failures)
        self._outage_ended()
        self._failures = self._unexpected = 0
        self._batch_waits = False
        self._sent.clear()
        self._metrics.waiting.set(0)

    def _outage_ended(self) -> None:
        if self._outage:
            self._unknowns.restart(self._clock())
        self._outage = False

    def _forget_other_partitions(self, assigned: set[Any]) -> None:
        """Forget the partitions of other members.
        Their reader starts at the committed offset, before the unknown submissions.
        """
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

    def _ask_again(self, due: Sequence[Unknown]) -> None:
        """Ask again for the submissions that the api did not know. Raises `UnavailableError`."""
        if not due:
            return
        try:
            unknown = self._sender.send([one.change for one in due])
        except (UnavailableError, KafkaError):
            raise
        except Exception as error:
            self._unexpected += 1
            self._log.error("unexpected", exc_info=error, changes=len(due))
            self._read_again()
            raise UnavailableError(f"unexpected: {fault(error)}") from error
        self._outage_ended()
        # A batch that waits may contain them. A submission that is settled here is not requested again.
        self._sent |= {one.id for one in due} - unknown
        for one in self._unknowns.update(due, unknown, self._clock()):
            self._metrics.unknown.inc()
            self._log.error("submission_unknown", submission_id=one.id, waited_seconds=UNKNOWN_SECONDS)
            self._sent.add(one.id)
            self._dead_letters.put_aside(
                one.record, f"the api does not know the submission after {UNKNOWN_SECONDS:g} s"
            )
        self._metrics.unknown_waiting.set(len(self._unknowns))

    def _read_again(self) -> None:
        """Read again from the first unknown submission on, so that the failing one becomes a dead letter."""
        self._rewound = self._unknowns.floors()
        self._handled |= self._rewound
        self._unknowns.clear()

    def _handle_any(self, records: Sequence[Any]) -> None:
        """Call `_handle`, so that no exception of one change makes its batch fail for ever."""
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
        """Handle the changes one by one. Those that fail become dead letters if others succeed.

        If none succeeds, the fault lies in the system itself, and the changes wait until it is repaired.
        """
        failed: list[tuple[Any, Exception]] = []
        for record in records:
            try:
                self._handle([record])
            except (UnavailableError, KafkaError):
                raise
            except Exception as error:  # noqa: BLE001  no exception may stop the next change
                failed.append((record, error))
        if len(failed) == len(records):
            raise failed[0][1]
        for record, cause in failed:
            self._dead_letter(record, f"cannot be handled: {fault(cause)}")

    def _handle(self, records: Sequence[Any]) -> None:
        # Submissions first: the result of a submission in the same batch then finds the message at the relay. If the
        # result was committed before the body was fetched, the api reports the submission as ended.
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
            except Exception as error:  # noqa: BLE001  decoding does no I/O: it would fail again each time
                self._dead_letter(record, fault(error))
        new = [id_ for id_ in submitted if id_ not in self._sent and id_ not in self._unknowns]
        unknown = self._sender.send([submitted[id_][0] for id_ in new]) if new else set()
        self._sent |= set(new) - unknown
        if ends:
            self._sender.end(ends)
        if removals:
            self._sender.remove_contents(removals)
        self._wait_for([submitted[id_] for id_ in sorted(unknown)])

    def _wait_for(self, unknown: Sequence[tuple[SubmissionChange, Any]]) -> None:
        """Keep the changes that arrived before their commit became visible, and ask for them again.
        Raises `FullError` if there are too many.
        """
        now = self._clock()
        kept = [self._unknowns.add(change, record, now) for change, record in unknown]
        self._metrics.unknown_waiting.set(len(self._unknowns))
        if not all(kept):
            raise FullError(f"the api does not know {len(self._unknowns)} submissions and more")

    def _dead_letter(self, record: Any, reason: str) -> None:
        self._log.error("change_undecodable", topic=record.topic, offset=record.offset, reason=reason)
        self._metrics.dead_letters.inc()
        self._dead_letters.put_aside(record, reason)

    def _retry_later(self, batch: Mapping[Any, Sequence[Any]], error: UnavailableError) -> None:
        self._failures += 1
        self._outage |= not isinstance(error, FullError)
        seconds = backoff_seconds(self._failures, self._jitter(), error.retry_after_seconds)
        self._resume_at = self._clock() + seconds
        for partition, offset in ({part: rows[0].offset for part, rows in batch.items()} | self._rewound).items():
            self._consumer.seek(partition, offset)
        self._batch_waits |= bool(batch or self._rewound)
        self._rewound = {}
        self._consumer.pause(*self._consumer.assignment())
        self._progress.batch_waits(str(error))
        self._metrics.unavailable.inc()
        self._metrics.waiting.set(1)
        self._log.warning("unavailable", error=str(error), retry_in_seconds=round(seconds, 2), failures=self._failures)
