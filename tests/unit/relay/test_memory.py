"""The memory budget: which requests get memory, which wait for it, and which are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from services.relay.memory.byte_budget import WAITING_MAX, ByteBudget, NoRoomError
from services.relay.memory.memory import (
    BEGINNING_BYTES,
    CALL_BYTES,
    SMALL_BYTES_MAX,
    TRANSFER_BYTES,
    WAITING_BYTES,
    Holding,
    Memory,
)


def told(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


def asked(share: ByteBudget, key: str, size: int, name: str = "", seconds: float = 20.0) -> asyncio.Task[None]:
    return asyncio.create_task(share.take(key, size, name, seconds))


async def settled() -> None:
    """Let every task run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_request_without_memory_waits_until_there_is_some_and_is_served_in_order() -> None:
    async def story() -> None:
        share = ByteBudget(100)
        await share.take("a", 60, "one")
        waiting = [asked(share, "b", 50, "two"), asked(share, "c", 10, "three")]
        await settled()
        assert [task.done() for task in waiting] == [False, False], "the small one does not overtake"
        share.give("a")
        await asyncio.gather(*waiting)
        assert share.left == 40

    told(story)


def test_the_wait_is_bounded_and_memory_that_was_not_granted_is_not_held() -> None:
    async def story() -> None:
        share = ByteBudget(100)
        share.hold("a", 100)
        with pytest.raises(NoRoomError):
            await share.take("b", 1, "one", 0.01)
        share.give("a")
        assert share.left == 100

    told(story)


def test_a_request_that_gives_up_lets_later_ones_proceed() -> None:
    async def story() -> None:
        share = ByteBudget(100)
        share.hold("a", 60)
        large, small = asked(share, "b", 80), asked(share, "c", 10)
        await settled()
        large.cancel()
        await small
        assert share.left == 30

    told(story)


def test_one_owner_has_at_most_half_and_others_overtake_it() -> None:
    async def story() -> None:
        share = ByteBudget(100)
        await share.take("a", 40, "greedy")
        second = asked(share, "b", 20, "greedy")
        await asked(share, "c", 30, "modest")
        assert not second.done()
        share.give("a")
        await second
        assert share.left == 50

    told(story)


def test_a_request_larger_than_the_limit_is_admitted_alone() -> None:
    async def story() -> None:
        share = ByteBudget(100)
        await share.take("a", 500, "one")
        other = asked(share, "b", 1, "two")
        await settled()
        assert not other.done()
        share.give("a")
        await other

    told(story)


def test_a_key_is_counted_once_and_released_once() -> None:
    share = ByteBudget(100)
    share.hold("a", 50, "one")
    share.hold("a", 20, "one")
    assert share.left == 80
    share.give("a")
    share.give("a")
    assert share.left == 100


def test_a_request_that_is_admitted_and_cancelled_at_the_same_time_holds_nothing() -> None:
    async def story() -> None:
        share = ByteBudget(100)
        share.hold("a", 100)
        waiting = asked(share, "b", 100)
        await settled()
        share.give("a")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert share.left == 100

    told(story)


def test_the_number_of_waiting_requests_is_limited() -> None:
    async def story() -> None:
        share = ByteBudget(100)
        share.hold("a", 100)
        waiting = [asked(share, f"w{n}", 1) for n in range(WAITING_MAX)]
        await settled()
        with pytest.raises(NoRoomError):
            await share.take("b", 1, "one")
        share.give("a")
        await settled()
        assert sum(task.done() for task in waiting) == 100
        for task in waiting:
            task.cancel()

    told(story)


def test_a_request_releases_its_memory() -> None:
    async def story() -> None:
        memory = Memory()
        free = (memory.requests.left, memory.batches.left)
        small, large = memory.holding("one"), memory.holding("one")
        await small.take(SMALL_BYTES_MAX)
        await large.take(SMALL_BYTES_MAX + 1)
        assert (memory.requests.left, memory.batches.left) == (free[0] - SMALL_BYTES_MAX, free[1] - SMALL_BYTES_MAX - 1)
        for holding in (small, large):
            holding.close()
        assert (memory.requests.left, memory.batches.left) == free

    told(story)


@pytest.mark.parametrize("bytes_max", [64, 256, 512, 4096])
def test_the_shares_are_within_the_budget(bytes_max: int) -> None:
    memory = Memory(bytes_max * 1024 * 1024)
    shares = (memory.calls, memory.answers, memory.requests, memory.batches)
    transfers = memory.transfers.places * TRANSFER_BYTES
    assert 0 < sum(share.left for share in shares) + transfers <= bytes_max * 1024 * 1024
    assert isinstance(memory.holding("one"), Holding)


def test_owners_that_use_all_memory_and_wait_for_more_delay_no_other() -> None:
    async def story() -> None:
        share = ByteBudget(100 * WAITING_BYTES)
        await share.take("a", 50 * WAITING_BYTES, "one")
        await share.take("b", 50 * WAITING_BYTES, "two")
        waiting = [asked(share, f"w{n}", 1, ("one", "three")[n % 2]) for n in range(100)]
        await settled()
        assert not share.crowded
        for task in waiting:
            task.cancel()

    told(story)


def test_one_owner_has_a_quarter_of_the_free_waiting_places() -> None:
    async def story() -> None:
        share = ByteBudget(100, waiting_max=100)
        share.hold("a", 100)
        waiting = [asked(share, f"{name}{n}", 1, name) for name in ("one", "two") for n in range(50)]
        await settled()
        assert [sum(task.done() for task in waiting[at : at + 50]) for at in (0, 50)] == [30, 34]
        assert all(isinstance(task.exception(), NoRoomError) for task in waiting if task.done())
        waiting.append(asked(share, "three", 1, "three"))
        await settled()
        assert not waiting[-1].done()
        for task in waiting:
            task.cancel()

    told(story)


def test_two_owners_do_not_use_all_of_a_fair_share() -> None:
    async def story() -> None:
        share = ByteBudget(100, fair=True)
        waiting = [asked(share, f"{name}{n}", 4, name) for name in ("one", "two") for n in range(50)]
        await settled()
        assert share.left >= 50
        await share.take("c", 40, "three")
        for task in waiting:
            task.cancel()

    told(story)


def test_a_request_larger_than_the_limit_lets_others_overtake_until_it_is_alone() -> None:
    async def story() -> None:
        share = ByteBudget(100)
        await share.take("a", 10, "one")
        large = asked(share, "b", 500, "two")
        await share.take("c", 10, "three", 1.0)
        share.give("a")
        await settled()
        assert not large.done()
        share.give("c")
        await large

    told(story)


def test_of_two_growing_requests_the_first_gets_its_memory_and_then_the_other() -> None:
    async def story() -> None:
        share = ByteBudget(100, first_grows=True)
        await share.take("a", 50, "one")
        await share.take("b", 50, "two")
        second = asked(share, "b", 200, "two")
        await share.take("a", 200, "one", 1.0)
        assert not second.done()
        share.give("a")
        await second
        assert share.left == -100

    told(story)


def test_memory_that_was_granted_without_a_wait_can_exceed_the_limit() -> None:
    share = ByteBudget(100)
    share.hold("a", 49)
    assert not share.crowded
    share.hold("b", 1)
    assert share.crowded
    share.give("a")
    assert not share.crowded


def test_a_growing_request_takes_only_the_difference_and_keeps_its_memory_while_it_waits() -> None:
    async def story() -> None:
        share = ByteBudget(100)
        await share.take("a", 20, "one")
        await share.take("a", 40, "one")
        assert share.left == 60
        await share.take("b", 40, "two")
        growing = asked(share, "a", 80, "one", 0.01)
        await settled()
        assert (growing.done(), share.left) == (False, 20)
        with pytest.raises(NoRoomError):
            await growing
        assert share.left == 20
        growing = asked(share, "a", 80, "one")
        await settled()
        share.give("b")
        await growing
        assert share.left == 20

    told(story)


def test_a_growing_request_has_its_owners_half_at_most_unless_it_is_alone() -> None:
    async def story() -> None:
        share = ByteBudget(100)
        await share.take("a", 20, "one")
        await share.take("b", 20, "one")
        with pytest.raises(NoRoomError):
            await share.take("a", 40, "one", 0.01)
        share.give("b")
        await share.take("a", 200, "one")
        assert share.left == -100

    told(story)


def test_only_a_request_that_holds_memory_grows_at_once_and_only_within_the_limit() -> None:
    share = ByteBudget(100)
    assert not share.grow("a", 10)
    share.hold("a", 20, "one")
    assert [share.grow("a", 50), share.left, share.grow("a", 31), share.left] == [True, 30, False, 30]
    share.give("a")
    assert share.left == 100


def test_the_first_bytes_of_an_answer_count_with_its_call_until_it_ends() -> None:
    memory = Memory()
    free = memory.calls.left
    memory.calls.hold("call", CALL_BYTES)
    assert memory.begin("call")
    assert memory.calls.left == free - CALL_BYTES - BEGINNING_BYTES
    memory.calls.give("call")
    assert memory.calls.left == free
    assert not memory.begin("call")
