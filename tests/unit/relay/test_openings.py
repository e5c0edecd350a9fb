"""Which calls without a connection delay others, and which are put off, with a clock of the test."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from services.relay.egress.http.faults import NotAttemptedError
from services.relay.egress.http.opening import (
    LATER_SECONDS_MAX,
    LATER_SECONDS_MIN,
    LOOK_SECONDS,
    RETURN_SECONDS_MAX,
    RETURNS_MAX,
    RETURNS_SECONDS,
    Opening,
    Openings,
    SlowCalls,
)

SLOW_MAX = 50
# A fifth of the places.
ALONE = 10


@dataclass
class Story:
    """`pass_time` checks as often as the pool does."""

    now: float = 100.0
    slow: SlowCalls = field(default_factory=lambda: SlowCalls(SLOW_MAX))
    openings: Openings = field(init=False)

    def __post_init__(self) -> None:
        self.openings = Openings(self.slow, lambda: self.now)

    def begin(self, key: str, count: int) -> list[Opening]:
        return [self.openings.begin(key) for _ in range(count)]

    def pass_time(self, seconds: float = LOOK_SECONDS) -> None:
        for _ in range(round(seconds / LOOK_SECONDS)):
            self.now += LOOK_SECONDS
            self.openings.look()


def test_calls_count_until_they_have_a_connection() -> None:
    story = Story()
    calls = story.begin("a", 3) + story.begin("b", 2)
    assert story.openings.counted == 5
    for call in calls[:3]:
        story.openings.end("a", call, came=True)
    for call in calls[3:]:
        story.openings.end("b", call, came=False)
    assert story.openings.counted == 0
    assert not story.openings


def test_a_destination_that_accepts_no_connection_does_not_count_after_a_moment() -> None:
    story = Story()
    story.begin("hole", ALONE)
    story.begin("well", 1)
    assert story.openings.counted == ALONE + 1
    story.pass_time()
    story.begin("new", 1)
    # every place but one belongs to calls that have a connection
    assert story.openings.counted == 1


def test_a_busy_destination_counts_however_many_calls_wait_for_it() -> None:
    story = Story()
    waiting = story.begin("busy", 300)
    for _ in range(20):
        # 300 per second: a new call waits for a second.
        for _ in range(75):
            story.openings.end("busy", waiting.pop(0), came=True)
        story.pass_time()
        waiting += story.begin("busy", 75)
        assert story.openings.counted == 300


def test_a_destination_that_accepts_a_few_connections_a_second_is_slow() -> None:
    story = Story()
    waiting = story.begin("drip", ALONE) + [story.openings.begin("drip") for _ in range(40)]
    for _ in range(8):
        story.openings.end("drip", waiting.pop(0), came=True)
        story.pass_time()
    assert story.openings.counted == 0


def test_a_destination_that_refuses_at_once_is_not_slow() -> None:
    story = Story()
    last = story.openings.begin("closed")
    for _ in range(8):
        for call in story.begin("closed", 100):
            story.openings.end("closed", call, came=False)
        story.pass_time()
    assert story.openings.counted == 1
    story.openings.end("closed", last, came=False)


def test_too_many_calls_of_a_slow_destination_are_put_off_for_as_long_as_it_is_slow() -> None:
    story = Story()
    story.begin("hole", 1)
    story.pass_time()
    story.begin("hole", ALONE - 1)
    with pytest.raises(NotAttemptedError) as at_first:
        story.begin("hole", SLOW_MAX)
    assert LATER_SECONDS_MIN <= at_first.value.seconds <= LATER_SECONDS_MIN + RETURNS_SECONDS
    story.pass_time(7)
    with pytest.raises(NotAttemptedError) as later:
        story.begin("hole", SLOW_MAX)
    assert 7 <= later.value.seconds <= 7 + LOOK_SECONDS + RETURNS_SECONDS
    story.pass_time(3600)
    with pytest.raises(NotAttemptedError) as at_last:
        story.begin("hole", SLOW_MAX)
    assert LATER_SECONDS_MAX <= at_last.value.seconds <= LATER_SECONDS_MAX + RETURNS_SECONDS


def test_few_of_the_calls_that_are_put_off_are_tried_at_a_time() -> None:
    story = Story()
    story.begin("hole", 1)
    story.begin("other hole", 1)
    story.pass_time()
    seconds = [story.openings.later("hole").seconds for _ in range(3 * RETURNS_MAX)]
    assert [seconds.count(moment) for moment in sorted(set(seconds))] == [RETURNS_MAX] * 3
    assert max(seconds) - min(seconds) == 2 * RETURNS_SECONDS
    assert story.openings.later("other hole").seconds == min(seconds)
    assert max(story.openings.later("hole").seconds for _ in range(50_000)) == RETURN_SECONDS_MAX
    story.pass_time(RETURN_SECONDS_MAX)
    assert story.openings.later("hole").seconds <= LATER_SECONDS_MAX + RETURNS_SECONDS


def test_no_number_of_slow_destinations_uses_all_places() -> None:
    story = Story()
    for number in range(20):
        key = f"hole-{number}"
        story.begin(key, 1)
        story.pass_time()
        with pytest.raises(NotAttemptedError):
            story.begin(key, SLOW_MAX)
    # Another destination that is only slow still has a call.
    story.begin("far away", 1)
    story.pass_time()
    assert story.openings.counted == 0


def test_calls_that_began_before_their_destination_was_known_to_be_slow_are_put_off_too() -> None:
    async def scenario() -> list[bool]:
        story = Story()
        ended: list[bool] = []

        async def call() -> None:
            opening = story.openings.begin("hole")
            try:
                async with asyncio.timeout(20) as opening.limit:
                    await asyncio.Event().wait()
            except TimeoutError:
                ended.append(opening.put_off)
            finally:
                story.openings.end("hole", opening, came=False)

        calls = [asyncio.create_task(call()) for _ in range(40)]
        await asyncio.sleep(0)
        # By the clock of the test a check is due. By the clock of the loop no time has passed.
        story.now = asyncio.get_running_loop().time()
        for opening in story.openings._origins["hole"].calls:
            opening.began = story.now
        story.pass_time()
        done, waiting = await asyncio.wait(calls, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        while len(waiting) > ALONE:
            done, waiting = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            assert done
        for one in waiting:
            one.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert story.openings.counted == 0
        return ended

    assert asyncio.run(scenario()) == [True] * 30


def test_calls_that_are_already_put_off_do_not_increase_their_destinations_share() -> None:
    async def scenario() -> list[int]:
        story = Story()
        openings: list[Opening] = []

        async def call() -> None:
            opening = story.openings.begin("hole")
            openings.append(opening)
            async with asyncio.timeout(20) as opening.limit:
                await asyncio.Event().wait()

        calls = [asyncio.create_task(call()) for _ in range(40)]
        await asyncio.sleep(0)
        story.now = asyncio.get_running_loop().time()
        for opening in openings:
            opening.began = story.now
        counts = []
        # No call that is put off ends before the next check, as the loop does not run.
        for others in (0, 20, 0):
            story.begin("others", others)
            story.pass_time()
            counts.append(sum(opening.put_off for opening in openings))
        for one in calls:
            one.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        return counts

    # A fifth of 50. Once the 20 others are known to be slow, a fifth of 30.
    assert asyncio.run(scenario()) == [40 - ALONE, 40 - ALONE, 40 - 6]


def test_many_slow_destinations_with_one_call_each_use_no_more_than_their_share() -> None:
    async def scenario() -> tuple[int, list[str]]:
        story = Story()
        ended: list[str] = []

        async def call(key: str) -> None:
            opening = story.openings.begin(key)
            try:
                async with asyncio.timeout(20) as opening.limit:
                    await asyncio.Event().wait()
            except TimeoutError:
                assert opening.put_off
                ended.append(key)
            finally:
                story.openings.end(key, opening, came=False)

        keys = [f"hole-{number}" for number in range(8 * SLOW_MAX)]
        story.now = asyncio.get_running_loop().time() - 2 * LOOK_SECONDS
        calls: list[asyncio.Task[None]] = []
        for key in keys:
            calls.append(asyncio.create_task(call(key)))
            await asyncio.sleep(0)
            story.now += 1e-6
        # Twice, as the calls that the first check put off have not ended at the second.
        story.pass_time()
        story.openings.look()
        waiting = set(calls)
        while len(waiting) > SLOW_MAX:
            done, waiting = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            assert done
        counted = story.openings.counted
        for one in waiting:
            one.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        # The calls that have waited for the longest time.
        assert sorted(ended) == sorted(keys[:-SLOW_MAX])
        return counted, ended

    assert asyncio.run(scenario())[0] == 0


def test_a_destination_whose_only_call_is_put_off_repeatedly_is_tried_less_and_less_often() -> None:
    story = Story()
    pauses = []
    for _ in range(8):
        [call] = story.begin("hole", 1)
        story.pass_time()
        seconds = story.openings.later("hole").seconds
        story.openings.end("hole", call, came=False)
        story.pass_time(round((seconds + LOOK_SECONDS) / LOOK_SECONDS) * LOOK_SECONDS)
        pauses.append(seconds)
    assert pauses == sorted(pauses)
    assert pauses[0] <= LATER_SECONDS_MIN + RETURNS_SECONDS
    assert LATER_SECONDS_MAX <= pauses[-1] <= LATER_SECONDS_MAX + RETURNS_SECONDS
    # Hours later. There was no check, as no call waited for a connection.
    story.now += 7200
    story.begin("hole", 1)
    story.pass_time()
    assert story.openings.later("hole").seconds <= LATER_SECONDS_MIN + RETURNS_SECONDS


# The calls of several pools together.
WHOLE = 400


def fill(story: Story, name: str) -> None:
    """Calls to destinations that accept no connection, as many to each as are permitted."""
    for n in range(6):
        key = f"{name}-{n}"
        story.begin(key, 1)
        story.pass_time()
        with pytest.raises(NotAttemptedError):
            story.begin(key, WHOLE)


def test_the_slow_calls_of_several_pools_are_together_no_more_than_those_of_one() -> None:
    alone = Story(slow=SlowCalls(WHOLE))
    fill(alone, "hole")
    assert WHOLE / 2 < alone.slow.count < WHOLE
    whole = SlowCalls(WHOLE)
    stories = [Story(slow=whole), Story(slow=SlowCalls(WHOLE // 2, whole)), Story(slow=whole)]
    for story in stories:
        fill(story, "hole")
    assert alone.slow.count < whole.count <= WHOLE
    assert all(story.openings.counted == 0 for story in stories)


def test_a_share_leaves_the_rest_to_the_others_and_releases_its_places() -> None:
    whole = SlowCalls(WHOLE)
    part = SlowCalls(WHOLE // 2, whole)
    story = Story(slow=part)
    fill(story, "hole")
    fill(story, "further hole")
    assert part.count == whole.count <= WHOLE // 2
    assert whole.left >= WHOLE // 2
    for key, origin in list(story.openings._origins.items()):
        for call in list(origin.calls):
            story.openings.end(key, call, came=False)
    assert (part.count, whole.count) == (0, 0)
