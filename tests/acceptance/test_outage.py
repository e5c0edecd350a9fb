"""The api is down while answers arrive, for longer than a target's own retries last. Every answer is stored."""

from __future__ import annotations

import time

from tests.acceptance.stacks import Stack
from tests.wait import until

SUBMISSIONS = 20
# demo-images retries three times, with half a second between attempts. The outage is twenty times as long.
AWAY_SECONDS = 30.0


def test_answers_that_arrive_while_the_api_is_down_are_all_stored(stack: Stack) -> None:
    ids = {stack.submit(f"outage {number}", latency_seconds=3.0) for number in range(SUBMISSIONS)}
    calls = "SELECT count(*) FROM relay.messages WHERE label = ANY (%s) AND state = 'active'"
    until(lambda: stack.count(calls, list(ids)) == SUBMISSIONS, 30)
    with stack.without_api():
        ended = time.monotonic() + AWAY_SECONDS
        answered = "SELECT count(*) FROM relay.messages WHERE label = ANY (%s) AND kind = 'callback'"
        until(lambda: stack.count(answered, list(ids)) == SUBMISSIONS, 30)
        until(lambda: time.monotonic() > ended, AWAY_SECONDS + 5)
        letters = "SELECT count(*) FROM relay.dead_letters WHERE labels && %s"
        assert stack.count(letters, list(ids)) == 0
    # Callbacks are at most a minute apart at that time.
    found = stack.completions(ids, 150)
    assert {id_: len(events) for id_, events in found.items()} == dict.fromkeys(ids, 1)
    assert {event["outcome"] for events in found.values() for event in events} == {"succeeded"}
    attempts = "SELECT count(*) FROM tidings.attempts WHERE submission_id = ANY (%s::uuid[])"
    assert stack.count(attempts, list(ids)) == SUBMISSIONS
