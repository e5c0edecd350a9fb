"""Kafka transactions with a limit on every wait; a failure names the topic that caused it.

It uses internals of kafka-python (3.0), as `changes.py` does in one place: its `commit_transaction`,
`abort_transaction` and `send_offsets_to_transaction` wait without a timeout, and `close` returns before it has ended
the sender's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from kafka import KafkaProducer
from kafka.errors import BrokerResponseError, KafkaError, KafkaTimeoutError, TopicAuthorizationFailedError

from tidings.kafka.cluster import Cluster
from tidings.kafka.failures import FENCED, FencedError, FirstFailure, RefusedError, StalledError, raise_cause, stalled

# The coordinator aborts a transaction after this time, which is how long a crash blocks consumers of committed events.
TRANSACTION_TIMEOUT_SECONDS = 10.0
# The client gives up first, so that a slow broker is never taken for another producer that fences this one.
COMMIT_SECONDS_MAX = 8.0
# The timeout for the metadata of a topic, and for a producer id; one missing topic may use up most of a transaction's
# time.
BLOCK_SECONDS_MAX = 5.0
REQUEST_TIMEOUT_MS = 5_000
# The sender of kafka-python sleeps for this time, 100 ms by default, if a transaction begins while the markers of the
# previous one are still being written; all records behind it wait. Observed in one transaction of seventy at 200 events
# a second.
RETRY_BACKOFF_MS = 5
CLOSE_SECONDS_MAX = 2.0
# A commit takes milliseconds. kafka-python retries a record for a deleted topic again and again, so after this time the
# client asks whether the topics still exist.
WAIT_SECONDS = 1.0
# The maximum time of that request to an unresponsive broker; it must not outlast the transaction.
ASK_SECONDS_MAX = 4.0


@dataclass(frozen=True)
class Outgoing:
    """A record to be sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


def transactional_producer(cluster: Cluster, name: str) -> Any:
    """Create a producer of the transactional id `name`.
    The broker aborts the open transaction of an earlier producer of that name.
    """
    producer = KafkaProducer(
        **cluster.options,
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
    """Stop a producer without sending its pending records, within `CLOSE_SECONDS_MAX`."""
    producer._sender.force_close()
    producer._sender.join(CLOSE_SECONDS_MAX)
    with suppress(KafkaError):
        producer.close(timeout=0)


class Transactions:
    """Executes one transaction at a time. A producer that has failed is replaced, which also aborts its transaction."""

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        clock: Callable[[], float],
        absent: Callable[[Collection[str]], frozenset[str]] = lambda _: frozenset(),
        seconds_max: float = COMMIT_SECONDS_MAX,
    ) -> None:
        """`absent` returns those of the given topics that do not exist."""
        self._make = make
        self._clock = clock
        self._absent = absent
        self._seconds_max = seconds_max
        self._producer: Any = None

    def open(self) -> None:
        """Create the producer if there is none.
        Raises `FencedError`, and `KafkaError` if the broker does not respond in time.
        """
        if self._producer is None:
            try:
                self._producer = self._make()
            except FENCED as error:
                raise FencedError(type(error).__name__) from error

    def commit(self, messages: Sequence[Outgoing], offsets: Mapping[Any, Any], group: Any) -> None:
        """Send `messages` and commit the group's `offsets`, all or nothing.

        Raises `RefusedError` and `StalledError` (nothing was committed), `FencedError`, and `KafkaError` if the outcome
        is unknown: the caller then reads the committed offsets of the group again.
        """
        self.open()
        self._load_metadata({message.topic for message in messages})
        first = FirstFailure()
        started = self._clock()
        try:
            self._commit(messages, offsets, group, first, started + self._seconds_max)
        except BaseException as error:
            producer, self._producer = self._producer, None
            last = producer._transaction_manager.last_error
            discard(producer)
            if not isinstance(error, KafkaError):
                raise
            raise_cause(error, last, first, overdue=self._clock() - started >= TRANSACTION_TIMEOUT_SECONDS)

    def close(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            discard(producer)

    def _load_metadata(self, topics: Collection[str]) -> None:
        """Get the metadata of all `topics` with one request: `send` would make one request for each, within the
        transaction's time.
        """
        unknown = [topic for topic in topics if self._producer._metadata.partitions_for_topic(topic) is None]
        if unknown and (absent := self._absent(unknown)):
            raise StalledError(absent)
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
        self, messages: Sequence[Outgoing], offsets: Mapping[Any, Any], group: Any, first: FirstFailure, end: float
    ) -> None:
        manager = self._producer._transaction_manager
        self._producer.begin_transaction()
        sent = []
        for message in messages:
            if self._clock() > end:
                raise StalledError(frozenset())
            sent.append((message.topic, self._send(message, first)))
        topics = {topic for topic, _ in sent}
        added = manager.send_offsets_to_transaction(offsets, group)
        if not self._wait_for(lambda by: self._within(added, by), end, topics):
            raise stalled(sent)
        for _, record in sent:
            try:
                if not self._wait_for(partial(self._is_acknowledged, record), end, topics):
                    raise stalled(sent)
            except KafkaError as error:
                # kafka-python does not abort a transaction if a record was not accepted in time: it would be committed
                # without that record.
                if error.retriable:
                    raise stalled(sent) from None
                raise
        if not self._within(manager.begin_commit(), end):
            raise KafkaTimeoutError("the broker did not respond to the commit in time")

    def _send(self, message: Outgoing, first: FirstFailure) -> Any:
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

    def _wait_for(self, done_by: Callable[[float], bool], end: float, topics: Collection[str]) -> bool:
        """Return whether it is done by `end`.
        Raises `StalledError` as soon as one of `topics` is known to be absent.
        """
        while (now := self._clock()) < end:
            if done_by(min(end, now + WAIT_SECONDS)):
                return True
            if end - self._clock() > ASK_SECONDS_MAX and (absent := self._absent(topics)):
                raise StalledError(absent)
        return done_by(end)

    def _is_acknowledged(self, record: Any, end: float) -> bool:
        try:
            record.get(timeout=max(0.0, end - self._clock()))
        except KafkaTimeoutError:
            if record.is_done:
                raise
            return False
        return True

    def _within(self, result: Any, end: float) -> bool:
        self._producer._sender.wakeup()
        return bool(result.wait(timeout_ms=max(0.0, end - self._clock()) * 1000))
