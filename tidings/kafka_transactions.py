"""Kafka transactions of which every wait ends, and whose failure names the topic that caused it.

The only module that uses internals of kafka-python (3.0): its `commit_transaction`, `abort_transaction` and
`send_offsets_to_transaction` wait without a timeout, and `close` gives up before it has ended the sender's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from kafka import KafkaProducer
from kafka.errors import (
    BrokerResponseError,
    ClusterAuthorizationFailedError,
    FencedInstanceIdError,
    InvalidProducerEpochError,
    InvalidProducerIdMappingError,
    InvalidRecordError,
    InvalidTimestampError,
    InvalidTxnStateError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumberError,
    ProducerFencedError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
    UnknownProducerIdError,
)

# The coordinator aborts a transaction of ours after so long, which is how long a crash holds up readers of committed events.
TRANSACTION_TIMEOUT_SECONDS = 10.0
# We give up first, so that a slow broker is never taken for another producer that fences us.
COMMIT_SECONDS_MAX = 8.0
# The wait for a topic's metadata, and for a producer id; one topic that is gone may use up most of a transaction's time.
BLOCK_SECONDS_MAX = 5.0
REQUEST_TIMEOUT_MS = 5_000
# kafka-python's sender sleeps for so long, 100 ms by default, when a transaction begins while the markers of the one before
# are still being written, and everything behind it waits: seen in one transaction of seventy at 200 events a second.
RETRY_BACKOFF_MS = 5
CLOSE_SECONDS_MAX = 2.0

FENCED = (ProducerFencedError, InvalidProducerEpochError, FencedInstanceIdError)
# The broker's answers that concern the producer; all others that do not pass by themselves concern the topic or the record.
_OF_THE_PRODUCER = (
    *FENCED, ClusterAuthorizationFailedError, InvalidProducerIdMappingError, InvalidTxnStateError,
    OutOfOrderSequenceNumberError, TransactionalIdAuthorizationFailedError, UnknownProducerIdError,
)  # fmt: skip
_OF_THE_RECORD = (InvalidRecordError, InvalidTimestampError, MessageSizeTooLargeError, RecordListTooLargeError)


@dataclass(frozen=True)
class Outgoing:
    """A record to be sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class FencedError(Exception):
    """Another process of the same name took this one's place; to end at once, as going on would be two of us."""


class OverdueError(KafkaError):  # type: ignore[misc]
    """The broker ended the transaction after its timeout, or another producer of this name did; which, it does not say."""


class RefusedError(Exception):
    """`topic` will not take a record; nothing was committed, and the rest may be sent without it.

    `of_record`: it may take others.
    """

    def __init__(self, topic: str, error: BaseException) -> None:
        super().__init__(f"{topic}: {type(error).__name__}")
        self.topic = topic
        self.reason = type(error).__name__
        self.of_record = isinstance(error, _OF_THE_RECORD)


class StalledError(Exception):
    """The time was up before the commit was asked for; nothing was committed. `topics` hang, or unknown when empty."""

    def __init__(self, topics: frozenset[str]) -> None:
        super().__init__(", ".join(sorted(topics)) or "no topic in particular")
        self.topics = topics


def transactional_producer(bootstrap: str, name: str) -> Any:
    """A producer whose transactions are those of `name`: what an earlier producer of that name left open is aborted."""
    producer = KafkaProducer(
        bootstrap_servers=bootstrap.split(","),
        client_id=name,
        transactional_id=name,
        transaction_timeout_ms=int(TRANSACTION_TIMEOUT_SECONDS * 1000),
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        retry_backoff_ms=RETRY_BACKOFF_MS,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        delivery_timeout_ms=int(COMMIT_SECONDS_MAX * 1000),
        max_block_ms=int(BLOCK_SECONDS_MAX * 1000),
        bootstrap_timeout_ms=int(BLOCK_SECONDS_MAX * 1000),
    )
    try:
        producer.init_transactions()
    except KafkaError:
        discard(producer)
        raise
    return producer


def discard(producer: Any) -> None:
    """End a producer without sending what it holds, within `CLOSE_SECONDS_MAX`."""
    producer._sender.force_close()
    producer._sender.join(CLOSE_SECONDS_MAX)
    with suppress(KafkaError):
        producer.close(timeout=0)


@dataclass
class _First:
    """The first record that failed. The others of its transaction fail after it, with the same error."""

    failure: tuple[str, BaseException] | None = None

    def watch(self, topic: str, sent: Any) -> None:
        sent.add_errback(self._failed, topic)

    def _failed(self, topic: str, error: BaseException) -> None:
        if self.failure is None:
            self.failure = (topic, error)


class Transactions:
    """One transaction at a time. A producer that failed once is replaced, which also aborts what it had begun."""

    def __init__(
        self, make: Callable[[], Any], *, clock: Callable[[], float], seconds_max: float = COMMIT_SECONDS_MAX
    ) -> None:
        self._make = make
        self._clock = clock
        self._seconds_max = seconds_max
        self._producer: Any = None

    def open(self) -> None:
        """Have a producer. Raises `FencedError`, and `KafkaError` when the broker does not answer in time."""
        if self._producer is None:
            try:
                self._producer = self._make()
            except FENCED as error:
                raise FencedError(type(error).__name__) from error

    def commit(self, messages: Sequence[Outgoing], offsets: Mapping[Any, Any], group: Any) -> None:
        """Send `messages` and commit the group's `offsets`, all or nothing.

        Raises `RefusedError` and `StalledError` (nothing was committed), `FencedError`, and `KafkaError` when it is not
        known what was committed: then the group's committed offsets say so, to whoever reads them anew.
        """
        self.open()
        self._learn({message.topic for message in messages})
        first = _First()
        begun = self._clock()
        try:
            self._commit(messages, offsets, group, first, begun + self._seconds_max)
        except BaseException as error:
            producer, self._producer = self._producer, None
            last = producer._transaction_manager.last_error
            discard(producer)
            if not isinstance(error, KafkaError):
                raise
            _tell(error, last, first, overdue=self._clock() - begun >= TRANSACTION_TIMEOUT_SECONDS)

    def close(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            discard(producer)

    def _learn(self, topics: Collection[str]) -> None:
        """Have the metadata of all `topics`, by one request: `send` makes one for each, within the transaction's time."""
        unknown = [topic for topic in topics if self._producer._metadata.partitions_for_topic(topic) is None]
        for topic in unknown:
            self._producer._sender.add_topic(topic)
        end = self._clock() + self._seconds_max
        for number, topic in enumerate(unknown):
            try:
                if self._clock() > end:
                    raise StalledError(frozenset(unknown[number:]))
                self._producer.partitions_for(topic)
            except TopicAuthorizationFailedError as error:
                raise RefusedError(topic, error) from error
            except KafkaTimeoutError:
                raise StalledError(frozenset({topic})) from None

    def _commit(
        self, messages: Sequence[Outgoing], offsets: Mapping[Any, Any], group: Any, first: _First, end: float
    ) -> None:
        manager = self._producer._transaction_manager
        self._producer.begin_transaction()
        sent = []
        for message in messages:
            if self._clock() > end:
                raise StalledError(frozenset())
            sent.append((message.topic, self._send(message, first)))
        if not self._within(manager.send_offsets_to_transaction(offsets, group), end):
            raise _stalled(sent)
        for _, record in sent:
            try:
                record.get(timeout=max(0.0, end - self._clock()))
            except KafkaTimeoutError:
                if first.failure is None:
                    raise _stalled(sent) from None
                raise
        if not self._within(manager.begin_commit(), end):
            raise KafkaTimeoutError("the commit was not answered in time")

    def _send(self, message: Outgoing, first: _First) -> Any:
        try:
            sent = self._producer.send(
                message.topic, key=message.key, value=message.value, headers=list(message.headers)
            )
        except KafkaTimeoutError:
            raise StalledError(frozenset({message.topic})) from None
        except BrokerResponseError as error:
            first.failure = first.failure or (message.topic, error)
            raise
        first.watch(message.topic, sent)
        return sent

    def _within(self, result: Any, end: float) -> bool:
        self._producer._sender.wakeup()
        return bool(result.wait(timeout_ms=max(0.0, end - self._clock()) * 1000))


def _stalled(sent: Sequence[tuple[str, Any]]) -> StalledError:
    """Records that are not acknowledged are to blame only when others are."""
    hanging = frozenset(topic for topic, record in sent if not record.is_done)
    arrived = any(record.is_done for _, record in sent)
    return StalledError(hanging if arrived else frozenset())


def _tell(error: KafkaError, last: BaseException | None, first: _First, *, overdue: bool) -> NoReturn:
    """Raise what `error` means: kafka-python raises most as a plain `KafkaError` that holds the cause as text."""
    causes = [error, last, first.failure[1] if first.failure else None]
    for cause in causes:
        if isinstance(cause, FENCED):
            if overdue:
                raise OverdueError(type(cause).__name__) from error
            raise FencedError(type(cause).__name__) from error
        if isinstance(cause, TopicAuthorizationFailedError) and cause.args:
            named = cause.args[0]
            topic = named if isinstance(named, str) else next(iter(named))
            raise RefusedError(topic, cause) from error
    if first.failure is not None:
        topic, cause = first.failure
        if isinstance(cause, BrokerResponseError) and not cause.retriable and not isinstance(cause, _OF_THE_PRODUCER):
            raise RefusedError(topic, cause) from error
        if isinstance(cause, KafkaError) and cause.retriable:
            raise StalledError(frozenset({topic})) from error
    raise error
