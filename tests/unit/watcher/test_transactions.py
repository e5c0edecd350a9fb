"""Which open transactions hang, with a fake broker."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from services.watcher.transactions import (
    CHECK_SECONDS,
    BrokerUnavailableError,
    CoordinatorUnavailableError,
    OpenTransaction,
    Ownership,
    RightMissingError,
    TransactionWatch,
)
from tests.unit.clock import Clock
from tidings.process import log

ONE = OpenTransaction("tidings.x", 0, 3, 10470, -1, 20918)
SECONDS_MAX = 60.0


class Broker:
    def __init__(self) -> None:
        self.open: list[OpenTransaction] = []
        self.known: set[OpenTransaction] = set()
        self.aborted: list[OpenTransaction] = []
        self.refused: set[OpenTransaction] = set()
        self.away = False
        self.coordinators_away = False
        self.missing = ""
        self.otherwise = Ownership.FORGOTTEN

    def open_transactions(self) -> Collection[OpenTransaction]:
        if self.away:
            raise BrokerUnavailableError("KafkaTimeoutError")
        if self.missing:
            raise RightMissingError(self.missing)
        return list(self.open)

    def ownerships(self, candidates: Collection[OpenTransaction]) -> Mapping[OpenTransaction, Ownership]:
        if self.coordinators_away:
            raise CoordinatorUnavailableError("1 of 50 transaction coordinators do not respond")
        return {one: Ownership.COORDINATED if one in self.known else self.otherwise for one in candidates}

    def abort(self, transaction: OpenTransaction) -> None:
        if transaction in self.refused:
            raise RightMissingError("CLUSTER_ACTION is missing")
        self.aborted.append(transaction)
        self.open.remove(transaction)


class Watching:
    def __init__(self) -> None:
        self.broker, self.clock = Broker(), Clock()
        self.watch = TransactionWatch(
            self.broker, seconds_max=SECONDS_MAX, clock=self.clock, registry=CollectorRegistry(), log=log.get("test")
        )

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.watch.run_once()
            self.clock.seconds += CHECK_SECONDS


@pytest.fixture
def watching() -> Watching:
    return Watching()


def test_one_contradiction_may_be_a_transaction_that_has_just_ended(watching: Watching) -> None:
    watching.broker.open = [ONE]
    watching.look(2)
    assert watching.watch.fault is None
    watching.broker.open = []
    watching.look(50)
    assert (watching.watch.fault, watching.broker.aborted) == (None, [])


def test_a_hanging_transaction_is_reported_first_and_aborted_after_its_time(watching: Watching) -> None:
    watching.broker.open = [ONE]
    watching.look(3)
    assert "tidings.x-0 at 20918 of producer 3" in str(watching.watch.fault)
    watching.look(int(SECONDS_MAX / CHECK_SECONDS) - 3)
    assert watching.broker.aborted == []
    watching.look()
    assert (watching.broker.aborted, watching.watch.fault) == ([ONE], None)


def test_a_transaction_that_a_coordinator_knows_again_is_not_aborted(watching: Watching) -> None:
    watching.broker.open = [ONE]
    watching.look(5)
    watching.broker.known = {ONE}
    watching.look(100)
    assert watching.broker.aborted == []
    assert "open for more than" in str(watching.watch.fault)


def test_successive_transactions_are_not_one_long_one(watching: Watching) -> None:
    for number in range(50):
        watching.broker.open = [replace(ONE, start_offset=ONE.start_offset + number)]
        watching.look()
    assert (watching.broker.aborted, watching.watch.fault) == ([], None)


def test_a_broker_that_is_down_is_reported(watching: Watching) -> None:
    watching.broker.away = True
    watching.look()
    assert watching.watch.fault == "Kafka does not respond: KafkaTimeoutError"
    watching.broker.away = False
    watching.look()
    assert watching.watch.fault is None


def test_checks_that_fail_do_not_restart_the_wait(watching: Watching) -> None:
    watching.broker.open = [ONE]
    for _ in range(int(SECONDS_MAX / CHECK_SECONDS)):
        watching.look()
        watching.broker.away = True
        watching.look()
        watching.broker.away = False
    watching.look(2)
    assert watching.broker.aborted == [ONE]


def test_a_transaction_that_cannot_be_aborted_does_not_block_others(watching: Watching) -> None:
    other = replace(ONE, topic="tidings.y")
    watching.broker.open, watching.broker.refused = [ONE, other], {ONE}
    watching.look(int(SECONDS_MAX / CHECK_SECONDS) + 2)
    assert watching.broker.aborted == [other]
    assert "tidings.x-0" in str(watching.watch.fault)
    assert "CLUSTER_ACTION is missing" in str(watching.watch.fault)


@pytest.mark.parametrize("ownership", [Ownership.UNKNOWN, Ownership.FOREIGN])
def test_a_transaction_that_is_not_known_to_be_ours_is_reported_and_not_aborted(
    watching: Watching, ownership: Ownership
) -> None:
    watching.broker.open, watching.broker.otherwise = [ONE], ownership
    watching.look(100)
    assert watching.broker.aborted == []
    assert watching.watch.fault == (
        f"1 transactions are open for more than 60 s: tidings.x-0 at 20918 of producer 3 ({ownership.value})"
    )


def test_a_missing_right_is_a_fault_that_names_it_and_aborts_nothing(watching: Watching) -> None:
    watching.broker.open = [ONE]
    watching.look(3)
    watching.broker.missing = "READ on topic tidings.* is missing"
    watching.look(100)
    assert watching.watch.fault == "open transactions cannot be classified: READ on topic tidings.* is missing"
    assert watching.broker.aborted == []


def test_while_a_coordinator_is_down_nothing_is_judged_and_this_is_logged(watching: Watching) -> None:
    watching.broker.open = [ONE]
    watching.look(3)
    watching.broker.coordinators_away = True
    watching.look(100)
    assert watching.watch.fault == (
        "open transactions cannot be classified: 1 of 50 transaction coordinators do not respond"
    )
    watching.broker.known = {ONE}
    watching.broker.coordinators_away = False
    watching.look(100)
    assert watching.broker.aborted == []


def test_observations_from_before_a_coordinator_went_down_do_not_count(watching: Watching) -> None:
    watching.broker.open = [ONE]
    watching.look(3)
    watching.broker.coordinators_away = True
    watching.look(100)
    watching.broker.coordinators_away = False
    watching.look()
    assert watching.broker.aborted == []
    watching.look()
    assert watching.broker.aborted == [ONE]
