"""A consumer that does not join its group is replaced."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.structs import ConsumerGroupMetadata, MemberState

from tests.unit.clock import Clock
from tidings.kafka.changes import JOIN_POLL_MS, JOIN_SECONDS_MAX, Changes, Subscription
from tidings.kafka.failures import JoinError
from tidings.process import log
from tidings.process.progress import Progress


class Consumer:
    """A consumer in the state that a test sets."""

    def __init__(self) -> None:
        self.state = MemberState.UNJOINED
        self.timeouts_ms: list[int] = []

    def subscribe(self, topics: list[str]) -> None:
        assert topics == ["t"]

    def poll(self, timeout_ms: int) -> dict[Any, list[Any]]:
        self.timeouts_ms.append(timeout_ms)
        return {}

    def group_metadata(self) -> ConsumerGroupMetadata:
        return ConsumerGroupMetadata(state=self.state)


class Member:
    def __init__(self) -> None:
        self.clock, self.consumer = Clock(), Consumer()
        self.changes = Changes(
            self.consumer,
            Subscription("g", "0", 1, ("t",)),
            progress=Progress(self.clock),
            log=log.get("test"),
            clock=self.clock,
        )

    def poll_after(self, seconds: float, state: str) -> None:
        self.clock.seconds += seconds
        self.consumer.state = state
        assert self.changes.poll(100) == {}


@pytest.mark.parametrize("state", [MemberState.UNJOINED, MemberState.REBALANCING])
def test_a_member_that_does_not_join_is_replaced(state: str) -> None:
    member = Member()
    member.poll_after(JOIN_SECONDS_MAX, state)
    with pytest.raises(JoinError, match="has not joined its group for 61 s"):
        member.poll_after(1, state)


def test_a_member_that_joined_and_rebalances_has_the_full_time_again() -> None:
    member = Member()
    member.poll_after(JOIN_SECONDS_MAX, MemberState.STABLE)
    member.poll_after(3 * JOIN_SECONDS_MAX, MemberState.STABLE)
    member.poll_after(3 * JOIN_SECONDS_MAX, MemberState.REBALANCING)
    member.poll_after(JOIN_SECONDS_MAX, MemberState.REBALANCING)
    member.poll_after(1, MemberState.STABLE)
    member.poll_after(JOIN_SECONDS_MAX, MemberState.REBALANCING)


def test_a_poll_is_long_while_the_member_joins_and_has_its_timeout_afterwards() -> None:
    member = Member()
    for state in (MemberState.REBALANCING, MemberState.STABLE, MemberState.STABLE, MemberState.REBALANCING):
        member.poll_after(1, state)
    member.poll_after(1, MemberState.STABLE)
    assert member.consumer.timeouts_ms == [JOIN_POLL_MS, JOIN_POLL_MS, 100, 100, JOIN_POLL_MS]
