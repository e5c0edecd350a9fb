"""Which coordinators are asked for a transaction, with a fake cluster. test_hanging_transactions uses a real one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.admin._transactions import TransactionState
from kafka.structs import TopicPartition

from services.watcher.broker import TRANSACTIONS, ownerships
from services.watcher.transactions import CoordinatorUnavailableError, OpenTransaction, Ownership

ONE = OpenTransaction("tidings.x", 0, 3, 10470, -1, 20918)


class Cluster:
    """`leaders` are those of the partitions of the transaction topic. Each broker knows the transactions of `known`."""

    def __init__(self, leaders: Mapping[int, int], known: Mapping[int, Collection[int]]) -> None:
        self.leaders, self.known = dict(leaders), known
        self.after: dict[int, int] | None = None
        self.brokers = {1, 2}
        self.prefix = "tidings-notifier-"
        self.state = TransactionState.ONGOING

    def describe_topics(self, topics: Collection[str]) -> list[dict[str, Any]]:
        assert list(topics) == [TRANSACTIONS]
        parts = [{"partition_index": number, "leader_id": leader} for number, leader in self.leaders.items()]
        return [{"name": TRANSACTIONS, "partitions": parts}]

    def list_transactions(
        self, broker_ids: Collection[int] | None = None, *, producer_id_filters: Collection[int]
    ) -> Mapping[int, list[Any]]:
        asked = self.brokers if broker_ids is None else broker_ids
        found = {
            broker: [
                SimpleNamespace(transactional_id=f"{self.prefix}{id_}", producer_id=id_)
                for id_ in self.known.get(broker, ())
                if id_ in producer_id_filters
            ]
            for broker in asked
        }
        self.leaders = self.leaders if self.after is None else self.after
        return found

    def describe_transactions(self, ids: Collection[str]) -> Mapping[str, Any]:
        parts = {TopicPartition(ONE.topic, ONE.partition)}
        return {
            id_: SimpleNamespace(
                producer_id=int(id_.removeprefix(self.prefix)), state=self.state, topic_partitions=parts
            )
            for id_ in ids
        }


def test_all_coordinators_are_asked() -> None:
    assert ownerships(Cluster({0: 1, 1: 2}, {2: [3]}), [ONE]) == {ONE: Ownership.COORDINATED}


@pytest.mark.parametrize(
    ("prefix", "ownership"),
    [
        ("tidings-notifier-", Ownership.FORGOTTEN),
        ("connect-cluster-tidings-", Ownership.FORGOTTEN),
        ("connect-cluster-", Ownership.FOREIGN),
        ("theirs-", Ownership.FOREIGN),
    ],
)
def test_only_a_transaction_with_our_transactional_id_is_known_to_be_forgotten(
    prefix: str, ownership: Ownership
) -> None:
    cluster = Cluster({0: 1, 1: 2}, {2: [3]})
    cluster.prefix, cluster.state = prefix, TransactionState.COMPLETE_COMMIT
    assert ownerships(cluster, [ONE]) == {ONE: ownership}


def test_a_transaction_whose_transactional_id_is_not_shown_is_not_known() -> None:
    assert ownerships(Cluster({0: 1, 1: 2}, {2: [4]}), [ONE]) == {ONE: Ownership.UNKNOWN}


def test_while_a_partition_has_no_leader_no_transaction_is_judged() -> None:
    cluster = Cluster({0: 1, 1: -1}, {2: [3]})
    cluster.brokers = {1}
    with pytest.raises(CoordinatorUnavailableError, match="1 of 2 transaction coordinators"):
        ownerships(cluster, [ONE])


def test_while_a_coordinator_changes_no_transaction_is_judged() -> None:
    cluster = Cluster({0: 1, 1: 2}, {})
    cluster.after = {0: 1, 1: 1}
    with pytest.raises(CoordinatorUnavailableError, match="changing"):
        ownerships(cluster, [ONE])


def test_without_the_right_to_see_the_coordinators_nothing_is_judged() -> None:
    with pytest.raises(CoordinatorUnavailableError, match="DESCRIBE"):
        ownerships(Cluster({}, {}), [ONE])
