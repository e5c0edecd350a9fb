"""Which coordinators are asked for a transaction, on a cluster made by hand; test_hanging_transactions has the real one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.admin._transactions import TransactionState
from kafka.structs import TopicPartition

from services.watcher.broker import TRANSACTIONS, coordinated
from services.watcher.transactions import CoordinatorsAwayError, OpenTransaction

ONE = OpenTransaction("tidings.x", 0, 3, 10470, -1, 20918)


class Cluster:
    """`leaders` are of the partitions of the topic of transactions; each broker knows the transactions of `known`."""

    def __init__(self, leaders: Mapping[int, int], known: Mapping[int, Collection[int]]) -> None:
        self.leaders, self.known = dict(leaders), known
        self.after: dict[int, int] | None = None
        self.brokers = {1, 2}

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
                SimpleNamespace(transactional_id=str(id_))
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
            id_: SimpleNamespace(producer_id=int(id_), state=TransactionState.ONGOING, topic_partitions=parts)
            for id_ in ids
        }


def test_all_coordinators_are_asked() -> None:
    assert coordinated(Cluster({0: 1, 1: 2}, {2: [3]}), [ONE]) == {ONE}
    assert coordinated(Cluster({0: 1, 1: 2}, {2: [4]}), [ONE]) == set()


def test_while_one_has_no_broker_no_transaction_is_judged() -> None:
    cluster = Cluster({0: 1, 1: -1}, {2: [3]})
    cluster.brokers = {1}
    with pytest.raises(CoordinatorsAwayError, match="1 of 2 coordinators"):
        coordinated(cluster, [ONE])


def test_while_one_changes_no_transaction_is_judged() -> None:
    cluster = Cluster({0: 1, 1: 2}, {})
    cluster.after = {0: 1, 1: 1}
    with pytest.raises(CoordinatorsAwayError, match="changing"):
        coordinated(cluster, [ONE])


def test_whoever_may_not_see_the_coordinators_judges_nothing() -> None:
    with pytest.raises(CoordinatorsAwayError, match="DESCRIBE"):
        coordinated(Cluster({}, {}), [ONE])
