"""The dispatcher's promises: nothing lost while the relay is away, nothing stuck on what the relay will never take."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.destination import Received, Reply
from tests.integration.dispatcher.conftest import Dispatching
from tidings.topics import DEAD_LETTERS, RESULTS, SUBMISSIONS

A, B, C = (f"01920000-0000-7000-8000-00000000000{n}" for n in (1, 2, 3))


def test_offsets_are_committed_when_the_relay_has_all_of_them(dispatching: Dispatching) -> None:
    dispatching.submit(A, B, C)
    dispatching.run()
    assert sorted(dispatching.labels()) == [A, B, C]
    assert dispatching.partitions.committed == {SUBMISSIONS: 3}
    [message] = [m for m in dispatching.published if m["headers"]["Upstash-Label"] == A]
    assert message["destination"] == "https://provider.example/v1"
    assert message["headers"]["Upstash-Deduplication-Id"] == A
    assert message["headers"]["Upstash-Forward-Authorization"] == "Bearer sk"
    assert message["headers"]["Upstash-Callback"].endswith(f"/callbacks/relay?submission={A}")


@pytest.mark.parametrize(
    "fault",
    [Reply(500), Reply(503), Reply(429), Reply(401), Reply(302), Reply(0), Reply(200, b"<html>"), Reply(200, b"[]")],
    ids=lambda reply: f"{reply.status}{reply.body.decode()}",
)
def test_a_relay_that_is_away_for_minutes_loses_nothing_and_is_not_hammered(
    dispatching: Dispatching, fault: Reply
) -> None:
    dispatching.relay = lambda _: fault
    dispatching.submit(A, B)
    dispatching.run(300)
    dispatching.submit(C)
    assert dispatching.partitions.committed == {}
    # 15 s at the most between tries, and at least half of that.
    assert 20 <= dispatching.requests_to_relay <= 50
    assert dispatching.partitions.polls >= 500  # or the group would have given its partitions to others
    dispatching.relay = dispatching.accept
    dispatching.run(16)
    assert sorted(dispatching.labels()) == [A, B, C]
    assert dispatching.partitions.committed == {SUBMISSIONS: 3}


def test_a_time_that_the_relay_names_is_kept_to(dispatching: Dispatching) -> None:
    dispatching.relay = lambda _: Reply(429, headers={"Retry-After": "40"})
    dispatching.submit(A)
    dispatching.run(39)
    assert dispatching.requests_to_relay == 1
    dispatching.run(3)
    assert dispatching.requests_to_relay == 2


def test_what_the_relay_refuses_for_good_fails_with_its_reason_and_holds_nothing_up(dispatching: Dispatching) -> None:
    def refuse_b(received: Received) -> Reply:
        messages = json.loads(received.body)
        if any(message["headers"]["Upstash-Label"] == B for message in messages):
            return Reply(400, b'{"error": "too large for me"}')
        return dispatching.accept(received)

    dispatching.relay = refuse_b
    dispatching.submit(A, B, C)
    dispatching.run()
    assert sorted(dispatching.labels()) == [A, C]
    assert dispatching.refused == {B: "the relay refused the call: too large for me"}
    assert dispatching.partitions.committed == {SUBMISSIONS: 3}


def test_one_message_that_the_batchs_answer_refuses_fails_alone(dispatching: Dispatching) -> None:
    dispatching.relay = lambda _: Reply(body=b'[{"messageId": "m"}, {"error": "not that one"}]')
    dispatching.submit(A, B)
    dispatching.run()
    assert dispatching.refused == {B: "the relay refused the call: not that one"}
    assert dispatching.partitions.committed == {SUBMISSIONS: 2}


@pytest.mark.parametrize(("target", "reason"), [("off", "KEY not set"), ("gone", "not known to the dispatcher")])
def test_a_target_that_cannot_be_called_fails_its_submissions(
    dispatching: Dispatching, target: str, reason: str
) -> None:
    dispatching.submit(A, target=target)
    dispatching.run()
    assert reason in dispatching.refused[A]
    assert dispatching.published == []
    assert dispatching.partitions.committed == {SUBMISSIONS: 1}


def test_what_ended_before_it_was_sent_is_not_sent(dispatching: Dispatching) -> None:
    dispatching.ended = {A}
    dispatching.submit(A, B)
    dispatching.run()
    assert dispatching.labels() == [B]


@pytest.mark.parametrize(("outcome", "cancelled"), [("cancelled", [A]), ("failed", [A]), ("succeeded", [])])
def test_an_end_takes_back_what_may_still_be_under_way(
    dispatching: Dispatching, outcome: str, cancelled: list[str]
) -> None:
    row = {
        "submission_id": A, "event_id": str(uuid.uuid4()), "tenant": "t", "target": "on", "outcome": outcome,
        "submitted_at": "2026-01-01T00:00:00Z", "created_at": "2026-01-01T00:00:01Z",
    }  # fmt: skip
    dispatching.partitions.add(RESULTS, json.dumps({"op": "c", "after": row}).encode())
    dispatching.run()
    assert dispatching.cancelled == cancelled
    assert dispatching.partitions.committed == {RESULTS: 1}


def test_what_cannot_be_decoded_is_put_aside_and_stops_nothing(dispatching: Dispatching) -> None:
    dispatching.partitions.add(SUBMISSIONS, b"\xff")
    dispatching.submit(A)
    dispatching.run()
    assert [(letter["topic"], letter["value"]) for letter in dispatching.letters.sent] == [(DEAD_LETTERS, b"\xff")]
    assert b"not JSON" in dict(dispatching.letters.sent[0]["headers"])["reason"]
    assert dispatching.labels() == [A]
