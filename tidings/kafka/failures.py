"""The meaning of a failed transaction, and the topic that caused it: kafka-python raises most errors as a plain
`KafkaError` that contains the cause as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

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
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumberError,
    ProducerFencedError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
    UnknownProducerIdError,
)

FENCED = (ProducerFencedError, InvalidProducerEpochError, FencedInstanceIdError)
# The broker's errors that concern the producer. All other permanent errors concern the topic or the record.
_OF_THE_PRODUCER = (
    *FENCED, ClusterAuthorizationFailedError, InvalidProducerIdMappingError, InvalidTxnStateError,
    OutOfOrderSequenceNumberError, TransactionalIdAuthorizationFailedError, UnknownProducerIdError,
)  # fmt: skip
_OF_THE_RECORD = (InvalidRecordError, InvalidTimestampError, MessageSizeTooLargeError, RecordListTooLargeError)


class FencedError(Exception):
    """Another process of the same name has replaced this one, which must exit at once; otherwise two would run."""


class OverdueError(KafkaError):  # type: ignore[misc]
    """The broker ended the transaction after its timeout, or another producer of this name did: the error does not
    distinguish them.
    """


class JoinError(KafkaError):  # type: ignore[misc]
    """The consumer did not join its group in time and must be replaced."""


class RefusedError(Exception):
    """`topic` rejects a record; nothing was committed, and the other records may be sent without it.

    `of_record`: the topic may accept other records.
    """

    def __init__(self, topic: str, error: BaseException) -> None:
        super().__init__(f"{topic}: {type(error).__name__}")
        self.topic = topic
        self.reason = type(error).__name__
        self.of_record = isinstance(error, _OF_THE_RECORD)


class StalledError(Exception):
    """The time limit passed before the commit was requested; nothing was committed.
    `topics` are the topics that hang; empty means unknown.
    """

    def __init__(self, topics: frozenset[str]) -> None:
        super().__init__(", ".join(sorted(topics)) or "no topic in particular")
        self.topics = topics


@dataclass
class FirstFailure:
    """The first record that failed. The other records of its transaction fail after it, with the same error."""

    failure: tuple[str, BaseException] | None = None

    def watch(self, topic: str, sent: Any) -> None:
        sent.add_errback(self._failed, topic)

    def _failed(self, topic: str, error: BaseException) -> None:
        if self.failure is None:
            self.failure = (topic, error)


def stalled(sent: Sequence[tuple[str, Any]]) -> StalledError:
    """Build the error. Unacknowledged records identify their topics as the cause only if others were acknowledged."""
    hanging = frozenset(topic for topic, record in sent if not record.succeeded())
    arrived = any(record.succeeded() for _, record in sent)
    return StalledError(hanging if arrived else frozenset())


def raise_cause(error: KafkaError, last: BaseException | None, first: FirstFailure, *, overdue: bool) -> NoReturn:
    """Raise the error that `error` stands for: kafka-python raises most errors as a plain `KafkaError` that contains
    the cause as text.
    """
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
            raise StalledError(frozenset()) from error
    raise error
