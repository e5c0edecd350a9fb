"""What a failed transaction means, and which topic caused it: kafka-python raises most as a plain `KafkaError` that
holds the cause as text.
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
# The broker's answers that concern the producer; all others that do not pass by themselves concern the topic or the
# record.
_OF_THE_PRODUCER = (
    *FENCED, ClusterAuthorizationFailedError, InvalidProducerIdMappingError, InvalidTxnStateError,
    OutOfOrderSequenceNumberError, TransactionalIdAuthorizationFailedError, UnknownProducerIdError,
)  # fmt: skip
_OF_THE_RECORD = (InvalidRecordError, InvalidTimestampError, MessageSizeTooLargeError, RecordListTooLargeError)


class FencedError(Exception):
    """Another process of the same name took this one's place; to end at once, as going on would be two of us."""


class OverdueError(KafkaError):  # type: ignore[misc]
    """The broker ended the transaction after its timeout, or another producer of this name did: it does not say."""


class JoinError(KafkaError):  # type: ignore[misc]
    """The consumer has not joined its group for too long; a new one is to be made."""


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


@dataclass
class FirstFailure:
    """The first record that failed. The others of its transaction fail after it, with the same error."""

    failure: tuple[str, BaseException] | None = None

    def watch(self, topic: str, sent: Any) -> None:
        sent.add_errback(self._failed, topic)

    def _failed(self, topic: str, error: BaseException) -> None:
        if self.failure is None:
            self.failure = (topic, error)


def stalled(sent: Sequence[tuple[str, Any]]) -> StalledError:
    """Records that are not acknowledged are to blame only when others are."""
    hanging = frozenset(topic for topic, record in sent if not record.succeeded())
    arrived = any(record.succeeded() for _, record in sent)
    return StalledError(hanging if arrived else frozenset())


def raise_cause(error: KafkaError, last: BaseException | None, first: FirstFailure, *, overdue: bool) -> NoReturn:
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
            raise StalledError(frozenset()) from error
    raise error
