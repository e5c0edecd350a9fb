"""Finds hanging Kafka transactions, which no coordinator will end, reports them, and aborts them.

A broker that is killed between the commit of a transaction and its markers can restart with the transaction complete in
the coordinator and open in a partition. No process ends it then, and consumers of committed records wait at it for
ever.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge
from structlog.stdlib import BoundLogger

CHECK_SECONDS = 5.0
# Partition and coordinator are asked one after the other, so a single contradiction may be a transaction that has just
# ended. If the same transaction is in the same partition at the next look, it was open all the time.
CHECKS_MIN = 2
NAMED_MAX = 3


class BrokerUnavailableError(Exception):
    """Kafka does not respond; the request must be retried."""


class CoordinatorUnavailableError(BrokerUnavailableError):
    """Some coordinator did not respond, so no transaction can be classified as hanging."""


class RightMissingError(BrokerUnavailableError):
    """Kafka refuses a request; the text names the missing right."""


class Ownership(StrEnum):
    """The classification of an open transaction. The values are for log lines, after the name of the transaction."""

    COORDINATED = "a coordinator ends it"
    FORGOTTEN = "no coordinator ends it"
    FOREIGN = "its transactional id belongs to another system"
    UNKNOWN = "no coordinator reports its transactional id"


@dataclass(frozen=True)
class OpenTransaction:
    """A transaction that has been open in a partition since the record at `start_offset`."""

    topic: str
    partition: int
    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    start_offset: int

    @property
    def place(self) -> tuple[str, int, int, int]:
        """The identity of the transaction while it is open."""
        return self.topic, self.partition, self.producer_id, self.start_offset

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition} at {self.start_offset} of producer {self.producer_id}"


class BrokerPort(Protocol):
    """Each method raises `BrokerUnavailableError`."""

    def open_transactions(self) -> Collection[OpenTransaction]: ...
    def ownerships(self, candidates: Collection[OpenTransaction]) -> Mapping[OpenTransaction, Ownership]:
        """Return the fate of each of `candidates`. Also raises `CoordinatorUnavailableError`."""

    def abort(self, transaction: OpenTransaction) -> None: ...


@dataclass
class _Candidate:
    transaction: OpenTransaction
    since: float
    orphan_checks: int = 0
    ownership: Ownership = Ownership.COORDINATED
    refusal: str = ""
    reported: bool = False

    def __str__(self) -> str:
        reason = self.refusal or (
            "" if self.ownership in {Ownership.COORDINATED, Ownership.FORGOTTEN} else self.ownership.value
        )
        return f"{self.transaction} ({reason})" if reason else str(self.transaction)


class TransactionWatch:
    """`run_once` looks every `CHECK_SECONDS`. A transaction of this system that has been open for `seconds_max` without
    a coordinator is aborted; one of unknown ownership is reported.
    """

    def __init__(
        self,
        broker: BrokerPort,
        *,
        seconds_max: float,
        clock: Callable[[], float],
        registry: CollectorRegistry,
        log: BoundLogger,
    ) -> None:
        self._broker = broker
        self._seconds_max = seconds_max
        self._clock = clock
        self._log = log
        self._seen: dict[tuple[str, int, int, int], _Candidate] = {}
        self._check_at = clock()
        self._hanging = Gauge(
            "tidings_hanging_transactions", "Open transactions that no coordinator knows", registry=registry
        )
        self._aborted = Counter(
            "tidings_hanging_transactions_aborted", "Hanging transactions that were aborted", registry=registry
        )
        self._reported: str | None = None
        self.fault: str | None = None

    def run_once(self) -> int:
        """Look if the interval has passed, and abort what is due; return the number of aborted transactions."""
        if self._clock() < self._check_at:
            return 0
        self._check_at = self._clock() + CHECK_SECONDS
        try:
            self._check()
        except (CoordinatorUnavailableError, RightMissingError) as error:
            self._report(f"open transactions cannot be classified: {error}")
            return 0
        except BrokerUnavailableError as error:
            self._report(f"Kafka does not respond: {error}")
            return 0
        self._reported = None
        ended = sum(map(self._end, self._due()))
        self._update_fault()
        return ended

    def _report(self, fault: str) -> None:
        """Report that no transaction could be classified; none is aborted."""
        if fault != self._reported:
            self._log.warning("transactions_not_judged", reason=fault)
        self._reported = self.fault = fault

    def _check(self) -> None:
        # The request precedes the reset: a failed look must not restart the wait of each transaction.
        found = self._broker.open_transactions()
        now = self._clock()
        before = self._seen
        self._seen = {}
        for one in found:
            self._seen[one.place] = (
                replace(old, transaction=one) if (old := before.get(one.place)) else _Candidate(one, now)
            )
        self._ask_coordinators([seen for seen in self._seen.values() if seen.since < now])

    def _ask_coordinators(self, old: Collection[_Candidate]) -> None:
        if not old:
            return
        try:
            ownerships = self._broker.ownerships([seen.transaction for seen in old])
        except BrokerUnavailableError:
            for seen in old:
                seen.orphan_checks = 0  # a new coordinator must be asked as often
            raise
        for seen in old:
            seen.ownership = ownerships[seen.transaction]
            seen.orphan_checks = seen.orphan_checks + 1 if seen.ownership is Ownership.FORGOTTEN else 0
            if seen.orphan_checks == CHECKS_MIN:
                self._log.error(
                    "transaction_hangs", transaction=str(seen.transaction), abort_after_seconds=self._seconds_max
                )

    def _orphans(self) -> list[_Candidate]:
        return [seen for seen in self._seen.values() if seen.orphan_checks >= CHECKS_MIN]

    def _due(self) -> list[_Candidate]:
        return [seen for seen in self._orphans() if self._clock() - seen.since >= self._seconds_max]

    def _end(self, seen: _Candidate) -> int:
        """Return 1 if the transaction was aborted. A failure does not stop the others; the next look retries it."""
        try:
            self._broker.abort(seen.transaction)
        except BrokerUnavailableError as error:
            seen.refusal = str(error)
            self._log.error("hanging_transaction_stays", transaction=str(seen.transaction), error=seen.refusal)
            return 0
        self._aborted.inc()
        self._log.warning("hanging_transaction_aborted", transaction=str(seen.transaction))
        del self._seen[seen.transaction.place]
        return 1

    def _update_fault(self) -> None:
        orphans = self._orphans()
        self._hanging.set(len(orphans))
        slow = [seen for seen in self._seen.values() if self._clock() - seen.since > self._seconds_max]
        self._report_foreign(slow)
        if orphans:
            self.fault = f"no coordinator will end {len(orphans)} open transactions: {_named(orphans)}"
        elif slow:
            self.fault = f"{len(slow)} transactions are open for more than {self._seconds_max:g} s: {_named(slow)}"
        else:
            self.fault = None

    def _report_foreign(self, slow: Collection[_Candidate]) -> None:
        """Log, once, each transaction that is left to an operator, because its owner is unknown."""
        for seen in slow:
            if seen.ownership in {Ownership.FOREIGN, Ownership.UNKNOWN} and not seen.reported:
                self._log.warning("transaction_left", transaction=str(seen.transaction), reason=seen.ownership.value)
                seen.reported = True


def _named(seen: Collection[_Candidate]) -> str:
    return ", ".join(sorted(map(str, seen))[:NAMED_MAX])
