"""Transactions that are interrupted, on a real broker: none of their records is visible, and none is missing later."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaTimeoutError
from prometheus_client import CollectorRegistry

from services.notifier.channel_state import ChannelState
from services.notifier.channels import Channels
from services.notifier.connection import Connection
from services.notifier.metrics import NotifierMetrics
from services.notifier.notifier import Notifier
from services.notifier.tenants import Tenants
from tests.integration.notifier.conftest import Notifying, Topics
from tests.wait import until
from tidings.contract.topics import COMPLETIONS, RESULTS, Topic
from tidings.kafka.changes import Changes, Subscription, change_consumer
from tidings.kafka.failures import StalledError
from tidings.kafka.topics import KafkaTopics
from tidings.kafka.transactions import Outgoing, Transactions, transactional_producer
from tidings.process import log
from tidings.process.progress import Progress
from tidings.process.telemetry import Telemetry


class FailsOnce:
    """A real producer. After `arm`, a transaction fails between its events and its offsets."""

    armed = False

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    def __getattr__(self, name: str) -> Any:
        return self if name == "_transaction_manager" else getattr(self._producer, name)

    @property
    def last_error(self) -> BaseException | None:
        return self._producer._transaction_manager.last_error  # type: ignore[no-any-return]

    def begin_commit(self) -> Any:
        return self._producer._transaction_manager.begin_commit()

    def send_offsets_to_transaction(self, offsets: Any, group: Any) -> Any:
        if FailsOnce.armed:
            FailsOnce.armed = False
            self._producer.flush(timeout=15)  # the events are in the log, like those of a slow transaction
            raise KafkaTimeoutError
        return self._producer._transaction_manager.send_offsets_to_transaction(offsets, group)


def test_an_aborted_transaction_shows_nothing_and_loses_nothing(topics: Topics, instance: str) -> None:
    metrics, progress, logger = NotifierMetrics(CollectorRegistry()), Progress(time.monotonic), log.get("test")
    changes = change_consumer(
        topics.cluster, Subscription(instance, instance, 500, (RESULTS,)), progress=progress, log=logger
    )
    transactions = Transactions(
        lambda: FailsOnce(transactional_producer(topics.cluster, instance)), clock=time.monotonic
    )
    channels = Channels(KafkaTopics(topics.cluster), channels_max=0, tenant_max=0, clock=time.monotonic)
    with closing(changes), closing(transactions):
        notifier = Notifier(
            Connection(changes, transactions), ChannelState(channels, Tenants(time.monotonic)),
            public_url="http://x", progress=progress, telemetry=Telemetry(metrics, logger),
        )  # fmt: skip
        until(lambda: notifier.run_once() == 0 and _at_end(changes), 60)
        FailsOnce.armed = True
        ids = sorted(topics.change() for _ in range(5))
        with pytest.raises(KafkaTimeoutError):
            until(notifier.run_once, 30)
        assert topics.completions(*ids) == []
        uncommitted = topics.completions(*ids, isolation="read_uncommitted")
        assert uncommitted != []
        # As the loop does after a failure: records that were read and not committed are read again.
        for part, offset in _committed(changes._consumer).items():
            changes.seek(part, offset)
        until(lambda: notifier.run_once() == 0 and topics.completions(*ids) == ids, 30)
    # The control: a reader of uncommitted records sees some twice, so the first transaction had written them.
    assert len(topics.completions(*ids, isolation="read_uncommitted")) == len(ids) + len(uncommitted)


# Longer than the test may take, so only the topic's absence can end the wait.
@pytest.mark.timeout(400)
def test_a_deleted_topic_is_named_before_the_timeout(topics: Topics, instance: str) -> None:
    gone = f"{COMPLETIONS}.c-{uuid.uuid4().hex}"
    kafka_topics = KafkaTopics(topics.cluster)
    changes = change_consumer(
        topics.cluster, Subscription(instance, instance, 500, (RESULTS,)),
        progress=Progress(time.monotonic), log=log.get("test"),
    )  # fmt: skip
    transactions = Transactions(
        lambda: transactional_producer(topics.cluster, instance),
        clock=time.monotonic, absent=kafka_topics.absent, seconds_max=10_000,
    )  # fmt: skip
    message = Outgoing(gone, b"key", b"value", [])
    with closing(changes), closing(transactions):
        kafka_topics.make([Topic(gone)])
        transactions.commit([message], {}, changes.group_metadata())
        with closing(KafkaAdminClient(bootstrap_servers=topics.bootstrap)) as admin:
            admin.delete_topics([gone])
        until(lambda: kafka_topics.absent([gone]), 30)
        # With a producer that knows the topic, then with a new one.
        for _ in range(2):
            with pytest.raises(StalledError) as stalled:
                transactions.commit([message], {}, changes.group_metadata())
            assert stalled.value.topics == {gone}


def _committed(consumer: Any) -> dict[Any, int]:
    return {part: consumer.committed(part) for part in consumer.assignment()}


def _at_end(changes: Changes) -> bool:
    return changes.look() == 0 and bool(changes.assignment())


def test_records_that_a_killed_notifier_did_not_commit_are_never_visible(
    topics: Topics, instance: str, notify: Callable[..., Notifying]
) -> None:
    id_ = topics.change()
    # The state after SIGKILL: events are sent, and neither committed nor aborted.
    killed = KafkaProducer(
        bootstrap_servers=topics.bootstrap, transactional_id=f"tidings-notifier-{instance}",
        transaction_timeout_ms=60_000, linger_ms=0,
    )  # fmt: skip
    with closing(killed):
        killed.init_transactions()
        killed.begin_transaction()
        killed.send(COMPLETIONS, key=id_.encode(), value=b"half done").get(timeout=15)
        notify()
        until(lambda: topics.completions(id_) == [id_], 30)
        assert [m.value for m in topics.read(COMPLETIONS) if m.key == id_] != [b"half done"]
        assert topics.completions(id_, isolation="read_uncommitted") == [id_, id_]
