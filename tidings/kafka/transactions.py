"""Kafka transactions of which every wait ends, and whose failure names the topic that caused it.

The only module that uses internals of kafka-python (3.0): its `commit_transaction`, `abort_transaction` and
`send_offsets_to_transaction` wait without a timeout, and `close` gives up before it has ended the sender's thread.
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

# The coordinator aborts a transaction of ours after so long, which is how long a crash holds up readers of committed
# events.
TRANSACTION_TIMEOUT_SECONDS = 10.0
# We give up first, so that a slow broker is never taken for another producer that fences us.
COMMIT_SECONDS_MAX = 8.0
# The wait for a topic's metadata, and for a producer id; one topic that is gone may use up most of a transaction's
# time.
BLOCK_SECONDS_MAX = 5.0
REQUEST_TIMEOUT_MS = 5_000
# kafka-python's sender sleeps for so long, 100 ms by default, when a transaction begins while the markers of the one
# before are still being written, and everything behind it waits: seen in one transaction of seventy at 200 events a
# second.
RETRY_BACKOFF_MS = 5
CLOSE_SECONDS_MAX = 2.0
# A commit takes milliseconds. kafka-python tries a record for a topic that was deleted again and again, so whoever waits
# for longer than this asks whether the topics are still there.
PATIENCE_SECONDS = 1.0
# A broker that is silent takes so long to ask, which must not outlast the transaction.
ASK_SECONDS_MAX = 4.0


@dataclass(frozen=True)
class Outgoing:
    """A record to be sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


def transactional_producer(cluster: Cluster, name: str) -> Any:
    """A producer whose transactions are those of `name`: what an earlier producer of that name left open is aborted."""
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
    """End a producer without sending what it holds, within `CLOSE_SECONDS_MAX`."""
    producer._sender.force_close()
    producer._sender.join(CLOSE_SECONDS_MAX)
    with suppress(KafkaError):
        producer.close(timeout=0)


class Transactions:
    """One transaction at a time. A producer that failed once is replaced, which also aborts what it had begun."""

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        clock: Callable[[], float],
        absent: Callable[[Collection[str]], frozenset[str]] = lambda _: frozenset(),
        seconds_max: float = COMMIT_SECONDS_MAX,
    ) -> None:
        """`absent` says which of some topics are not there."""
        self._make = make
        self._clock = clock
        self._absent = absent
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
        first = FirstFailure()
        begun = self._clock()
        try:
            self._commit(messages, offsets, group, first, begun + self._seconds_max)
        except BaseException as error:
            producer, self._producer = self._producer, None
            last = producer._transaction_manager.last_error
            discard(producer)
            if not isinstance(error, KafkaError):
                raise
            raise_cause(error, last, first, overdue=self._clock() - begun >= TRANSACTION_TIMEOUT_SECONDS)

    def close(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            discard(producer)

    def _learn(self, topics: Collection[str]) -> None:
        """Have the metadata of all `topics`, by one request: `send` makes one for each, and the time runs."""
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
        if not self._patiently(lambda by: self._within(added, by), end, topics):
            raise stalled(sent)
        for _, record in sent:
            try:
                if not self._patiently(partial(self._arrived, record), end, topics):
                    raise stalled(sent)
            except KafkaError as error:
                # kafka-python leaves a transaction as it is when a record was not taken in time: it would be committed
                # without that record.
                if error.retriable:
                    raise stalled(sent) from None
                raise
        if not self._within(manager.begin_commit(), end):
            raise KafkaTimeoutError("the commit was not answered in time")

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

    def _patiently(self, done_by: Callable[[float], bool], end: float, topics: Collection[str]) -> bool:
        """Whether it is done by `end`. Raises `StalledError` as soon as one of `topics` is known to be absent."""
        while (now := self._clock()) < end:
            if done_by(min(end, now + PATIENCE_SECONDS)):
                return True
            if end - self._clock() > ASK_SECONDS_MAX and (absent := self._absent(topics)):
                raise StalledError(absent)
        return done_by(end)

    def _arrived(self, record: Any, end: float) -> bool:
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
