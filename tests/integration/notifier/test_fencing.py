"""Another producer or consumer with the same name, on a real broker, is distinguished from a fault and from our own
delay.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import pytest
from kafka.structs import OffsetAndMetadata, TopicPartition

from tests.integration.notifier.conftest import Topics
from tests.unit.clock import Clock
from tests.wait import until
from tidings.contract.topics import COMPLETIONS, RESULTS
from tidings.kafka.changes import Changes, Subscription, change_consumer
from tidings.kafka.failures import FencedError, OverdueError
from tidings.kafka.loop import replaced
from tidings.kafka.transactions import (
    TRANSACTION_TIMEOUT_SECONDS,
    Outgoing,
    Transactions,
    discard,
    transactional_producer,
)
from tidings.process import log
from tidings.process.progress import Progress


def _commit(transactions: Transactions, instance: str, value: bytes = b"x") -> None:
    offsets = {TopicPartition(RESULTS, 0): OffsetAndMetadata(0, "", -1)}
    transactions.commit([Outgoing(COMPLETIONS, instance.encode(), value, ())], offsets, instance)


def test_a_producer_that_another_replaced_is_reported(topics: Topics, instance: str) -> None:
    with closing(
        Transactions(lambda: transactional_producer(topics.cluster, instance), clock=time.monotonic)
    ) as transactions:
        _commit(transactions, instance)
        discard(transactional_producer(topics.cluster, instance))
        with pytest.raises(FencedError):
            _commit(transactions, instance, b"of the loser")
    assert [m.value for m in topics.read(COMPLETIONS) if m.key == instance] == [b"x"]


def test_after_the_transactions_timeout_the_coordinator_may_have_fenced_the_producer(
    topics: Topics, instance: str
) -> None:
    clock = Clock()
    late: list[Callable[[], None]] = []

    class Late(Transactions):
        """A process that is suspended for some time during a transaction."""

        def _send(self, message: Outgoing, first: object) -> object:
            sent = super()._send(message, first)  # type: ignore[arg-type]
            while late:
                late.pop()()
            return sent

    def pause() -> None:
        discard(transactional_producer(topics.cluster, instance))  # bumps the epoch, as the coordinator does
        clock.seconds += TRANSACTION_TIMEOUT_SECONDS

    with closing(Late(lambda: transactional_producer(topics.cluster, instance), clock=clock, seconds_max=60)) as ours:
        late.append(pause)
        with pytest.raises(OverdueError):
            _commit(ours, instance, b"too late")
        _commit(ours, instance)  # with a new producer
    assert [m.value for m in topics.read(COMPLETIONS) if m.key == instance] == [b"x"]


def test_a_member_detects_whether_another_has_its_name(topics: Topics, instance: str) -> None:
    def member() -> Changes:
        return change_consumer(
            topics.cluster, Subscription(instance, "0", 1, (RESULTS,)),
            progress=Progress(time.monotonic), log=log.get("test"),
        )  # fmt: skip

    with closing(member()) as first:
        until(lambda: first.poll(500) is None or first.assignment(), 60)
        assert not replaced(topics.cluster, first)
        with closing(member()) as second:
            until(lambda: second.poll(500) is None or second.assignment(), 60)
            assert replaced(topics.cluster, first)
            assert not replaced(topics.cluster, second)
