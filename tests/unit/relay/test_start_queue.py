"""Which starts of attempts are sent together, and which are given up."""

from __future__ import annotations

from collections.abc import Callable

from services.relay.engine.start_queue import (
    AGE_SECONDS_MAX,
    BATCH_MAX,
    NO_SUCCESS_SECONDS,
    STARTS_MAX,
    URLS_MAX,
    Put,
    Start,
    StartQueue,
)

API, DEAD = "http://api/starts", "http://dead/starts"


def start(number: int, put_at: float = 0.0, over: Callable[[], bool] = lambda: False) -> Start:
    return Start(f"msg_{number}", None, 0, 1_700_000_000_000, "", put_at, over)


def numbers(queue: StartQueue, url: str = API, now: float = 0.0) -> list[int]:
    """The starts of the next batch, which is then settled."""
    sent = queue.take(url, now)
    queue.settle(sent)
    return [int(one.message_id.removeprefix("msg_")) for one in sent.batch]


def test_a_single_start_is_a_batch() -> None:
    queue = StartQueue()
    assert queue.put(API, start(1)).dropped == 0
    assert (numbers(queue), numbers(queue), len(queue)) == ([1], [], 0)


def test_starts_that_arrived_meanwhile_are_sent_together_in_order_and_up_to_a_limit() -> None:
    queue = StartQueue()
    for number in range(BATCH_MAX + 3):
        queue.put(API, start(number))
    assert numbers(queue) == list(range(BATCH_MAX))
    assert numbers(queue) == [BATCH_MAX, BATCH_MAX + 1, BATCH_MAX + 2]


def test_a_batch_that_is_returned_is_the_next_one() -> None:
    queue = StartQueue()
    queue.put(API, start(1))
    queue.put(API, start(2))
    sent = queue.take(API, 0.0)
    queue.put(API, start(3))
    queue.give_back(API, sent)
    assert len(queue) == 3
    assert (numbers(queue), len(queue)) == ([1, 2, 3], 0)


def test_a_start_is_sent_until_it_is_too_old() -> None:
    queue = StartQueue()
    queue.put(API, start(1, put_at=0.0))
    queue.put(API, start(2, put_at=0.5))
    sent = queue.take(API, AGE_SECONDS_MAX + 0.25)
    assert ([one.message_id for one in sent.batch], sent.late, len(queue)) == (["msg_2"], 1, 1)


def test_the_start_of_an_attempt_that_has_ended_is_not_sent() -> None:
    queue, ended = StartQueue(), [False]
    queue.put(API, start(1, over=lambda: ended[0]))
    queue.put(API, start(2))
    ended[0] = True
    sent = queue.take(API, 0.0)
    assert ([one.message_id for one in sent.batch], sent.over, sent.late) == (["msg_2"], 1, 0)


def test_when_all_places_are_used_the_longest_queue_loses_one() -> None:
    queue = StartQueue()
    for number in range(STARTS_MAX):
        assert queue.put(DEAD, start(number)).dropped == 0
    assert [queue.put(API, start(number)).dropped for number in range(3)] == [1, 1, 1]
    assert len(queue) == STARTS_MAX
    assert numbers(queue, API) == [0, 1, 2]
    assert numbers(queue, DEAD)[0] == 3


def test_starts_in_progress_count() -> None:
    queue = StartQueue()
    for number in range(STARTS_MAX):
        queue.put(API, start(number))
    sent = queue.take(API, 0.0)
    assert queue.put(API, start(STARTS_MAX)).dropped == 1
    queue.settle(sent)
    assert queue.put(API, start(STARTS_MAX + 1)).dropped == 0


def full(put_at: float = 0.0) -> StartQueue:
    """Addresses that never answered, a millisecond apart, use all places."""
    queue = StartQueue()
    for number in range(URLS_MAX):
        queue.put(f"{DEAD}/{number}", start(number, put_at + number / 1000))
    return queue


def test_the_number_of_addresses_is_limited_and_those_without_starts_are_forgotten() -> None:
    queue = full()
    assert queue.put(API, start(1, 0.1)) == Put(dropped=1, refused=True)
    assert numbers(queue, f"{DEAD}/0") == [0]
    assert queue.put(API, start(1, 0.1)).refused, "its last request may be in progress"
    assert numbers(queue, f"{DEAD}/0") == []
    assert queue.put(API, start(1, 0.1)) == Put()


def test_the_address_that_has_not_answered_for_the_longest_time_is_replaced() -> None:
    queue = full()
    queue.put(f"{DEAD}/0", start(URLS_MAX, 0.5))
    assert queue.put(API, start(1, NO_SUCCESS_SECONDS)) == Put(dropped=2, evicted=f"{DEAD}/0")
    assert (numbers(queue, API), len(queue)) == ([1], URLS_MAX - 1)


def test_an_address_that_answers_repeatedly_keeps_its_place() -> None:
    queue = full()
    for number in range(URLS_MAX):
        sent = queue.take(f"{DEAD}/{number}", 0.1)
        if number:
            queue.succeeded(f"{DEAD}/{number}", sent, 5.0 + number / 1000)
        else:
            queue.give_back(f"{DEAD}/0", sent)
    assert queue.put(API, start(1, 5.5)).evicted == f"{DEAD}/0"
    assert queue.put(f"{API}/2", start(1, 5.5)).refused


def test_an_address_that_has_answered_takes_its_place_from_those_that_never_have() -> None:
    """A sender that names many new addresses does not displace an address that answers."""
    queue = StartQueue()
    queue.put(API, start(1))
    queue.succeeded(API, queue.take(API, 0.0), 0.0)
    assert numbers(queue, API) == []
    for number in range(URLS_MAX):
        queue.put(f"{DEAD}/{number}", start(number, 0.1))
    assert queue.put(API, start(2, 0.1)).evicted == f"{DEAD}/0"
    assert queue.put(f"{DEAD}/x", start(2, 0.1)).refused


def test_the_number_of_remembered_addresses_is_limited() -> None:
    queue = StartQueue()
    for number in range(3 * URLS_MAX):
        queue.put(f"{API}/{number}", start(1))
        queue.succeeded(f"{API}/{number}", queue.take(f"{API}/{number}", 0.0), 0.0)
        assert numbers(queue, f"{API}/{number}") == []
    assert len(queue._succeeded_at) == URLS_MAX
