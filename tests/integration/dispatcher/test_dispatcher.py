"""The dispatcher loses nothing while the relay is down, and is not blocked by a message that the relay refuses for
good.
"""

from __future__ import annotations

import json

import pytest
from prometheus_client import CollectorRegistry

from services.dispatcher.__main__ import make_sender
from services.dispatcher.message import CALLBACK_RETRY_DELAY
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.sender import FRESH_SECONDS
from services.dispatcher.settings import DispatcherSettings
from services.dispatcher.unknown import UNKNOWN_SECONDS
from tests.destination import Received, Reply
from tests.integration.dispatcher.conftest import SECRET, Dispatching
from tidings.contract.callback_token import is_callback_token
from tidings.contract.change import decode_result
from tidings.contract.topics import DEAD_LETTERS, REMOVALS, RESULTS, SUBMISSIONS
from tidings.process import log
from tidings.process.telemetry import Telemetry

A, B, C = (f"01920000-0000-7000-8000-00000000000{n}" for n in (1, 2, 3))


def test_offsets_are_committed_when_the_relay_has_accepted_the_batch(dispatching: Dispatching) -> None:
    dispatching.submit(A, B, C)
    dispatching.run()
    assert sorted(dispatching.labels()) == [A, B, C]
    assert dispatching.partitions.committed == {SUBMISSIONS: 3}
    [message] = [m for m in dispatching.published if m["headers"]["Upstash-Label"] == A]
    assert message["destination"] == "https://provider.example/v1"
    assert message["headers"]["Upstash-Deduplication-Id"] == A
    assert message["headers"]["Upstash-Forward-Authorization"] == "Bearer sk"
    assert message["headers"]["Upstash-Callback"].endswith(f"/callbacks/relay?submission={A}")
    # One address for all submissions, with a token for each.
    assert {m["headers"]["Tidings-Started-Callback"].partition("/callbacks")[2] for m in dispatching.published} == {
        "/relay/starts"
    }
    for told in dispatching.published:
        token = told["headers"]["Tidings-Started-Data"]
        assert told["headers"]["Upstash-Callback-Forward-Authorization"] == f"Bearer {token}"
    assert len({m["headers"]["Tidings-Started-Data"] for m in dispatching.published}) == 3


@pytest.mark.parametrize(
    "fault",
    [Reply(500), Reply(503), Reply(429), Reply(401), Reply(302), Reply(0), Reply(200, b"<html>"), Reply(200, b"[]")],
    ids=lambda reply: f"{reply.status}{reply.body.decode()}",
)
def test_a_relay_that_is_down_for_minutes_loses_nothing_and_gets_few_requests(
    dispatching: Dispatching, fault: Reply
) -> None:
    dispatching.relay = lambda _: fault
    dispatching.submit(A, B)
    dispatching.run(300)
    dispatching.submit(C)
    assert dispatching.partitions.committed == {}
    # At most 15 s between attempts, and at least half of that.
    assert 20 <= dispatching.requests_to_relay <= 50
    assert dispatching.partitions.polls >= 500  # otherwise the group would have assigned its partitions to others
    dispatching.relay = dispatching.accept
    dispatching.run(16)
    assert sorted(dispatching.labels()) == [A, B, C]
    assert dispatching.partitions.committed == {SUBMISSIONS: 3}


def test_the_retry_after_of_the_relay_is_obeyed(dispatching: Dispatching) -> None:
    dispatching.relay = lambda _: Reply(429, headers={"Retry-After": "40"})
    dispatching.submit(A)
    dispatching.run(39)
    assert dispatching.requests_to_relay == 1
    dispatching.run(3)
    assert dispatching.requests_to_relay == 2


def test_a_message_that_the_relay_refuses_for_good_fails_with_its_reason_and_delays_no_other(
    dispatching: Dispatching,
) -> None:
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


def test_a_message_that_the_batchs_answer_refuses_fails_alone(dispatching: Dispatching) -> None:
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


def test_a_submission_that_has_ended_is_not_sent(dispatching: Dispatching) -> None:
    dispatching.ended = {A}
    dispatching.submit(A, B)
    dispatching.run()
    assert dispatching.labels() == [B]


@pytest.mark.parametrize(("outcome", "cancelled"), [("cancelled", [A]), ("failed", [A]), ("succeeded", [])])
def test_an_end_cancels_a_call_that_may_be_in_progress(
    dispatching: Dispatching, outcome: str, cancelled: list[str]
) -> None:
    dispatching.end(A, outcome)
    dispatching.run()
    assert dispatching.cancelled == cancelled
    assert dispatching.partitions.committed == {RESULTS: 1}


def test_an_undecodable_change_is_a_dead_letter_and_delays_no_other(dispatching: Dispatching) -> None:
    dispatching.partitions.add(SUBMISSIONS, b"\xff")
    dispatching.submit(A)
    dispatching.run()
    assert [(letter["topic"], letter["value"]) for letter in dispatching.letters.sent] == [(DEAD_LETTERS, b"\xff")]
    assert b"not JSON" in dict(dispatching.letters.sent[0]["headers"])["reason"]
    assert dispatching.labels() == [A]


def test_an_unknown_submission_is_requested_until_its_commit_is_visible(dispatching: Dispatching) -> None:
    dispatching.invisible = {B}
    dispatching.submit(A, B, C)
    dispatching.run(10)
    assert sorted(dispatching.labels()) == [A, C]
    assert dispatching.partitions.committed == {SUBMISSIONS: 1}  # before the unknown one
    dispatching.invisible = set()
    dispatching.run(16)
    assert sorted(dispatching.labels()) == [A, B, C]  # and no other is sent twice
    assert dispatching.partitions.committed == {SUBMISSIONS: 3}
    assert dispatching.letters.sent == []


def test_a_submission_that_remains_unknown_is_a_logged_dead_letter_and_delays_no_other(
    dispatching: Dispatching,
) -> None:
    dispatching.invisible = {B}
    dispatching.submit(A, B)
    dispatching.end(C, "cancelled")
    dispatching.run(1)
    assert dispatching.cancelled[:1] == [C]
    dispatching.run(60)
    assert dispatching.partitions.committed == {SUBMISSIONS: 2, RESULTS: 1}
    [letter] = dispatching.letters.sent
    assert B.encode() in letter["value"]
    assert b"does not know the submission" in dict(letter["headers"])["reason"]
    assert dispatching.counted("tidings_dispatcher_unknown") == 1
    # The time of the next unknown one begins at zero.
    dispatching.invisible = {C}
    dispatching.submit(C)
    dispatching.run(10)
    assert dispatching.partitions.committed[SUBMISSIONS] == 2


def test_one_unknown_submission_delays_no_other(dispatching: Dispatching) -> None:
    dispatching.invisible = {A}
    dispatching.submit(A)
    dispatching.run(1)
    dispatching.submit(B)
    dispatching.end(C, "cancelled")
    dispatching.run(1)
    assert (dispatching.labels(), dispatching.cancelled) == ([B], [C])
    assert dispatching.partitions.committed == {SUBMISSIONS: 0, RESULTS: 1}
    dispatching.invisible = set()
    dispatching.run(5)
    assert dispatching.labels() == [B, A]
    assert dispatching.partitions.committed == {SUBMISSIONS: 2, RESULTS: 1}


def test_each_unknown_submission_has_its_own_time(dispatching: Dispatching) -> None:
    dispatching.invisible = {A, B}
    dispatching.submit(A)
    dispatching.run(UNKNOWN_SECONDS - 5)
    dispatching.submit(B)
    dispatching.run(20)
    assert [A.encode() in letter["value"] for letter in dispatching.letters.sent] == [True]
    assert dispatching.partitions.committed == {SUBMISSIONS: 1}
    dispatching.invisible = set()
    dispatching.run(20)
    assert dispatching.labels() == [B]
    assert dispatching.partitions.committed == {SUBMISSIONS: 2}


def test_time_in_which_the_api_does_not_answer_counts_for_no_submission(dispatching: Dispatching) -> None:
    dispatching.invisible = {A}
    dispatching.submit(A)
    dispatching.run(1)
    dispatching.api_away = True
    dispatching.run(10 * UNKNOWN_SECONDS)
    assert dispatching.progress.fault() is not None
    dispatching.api_away = False
    dispatching.run(UNKNOWN_SECONDS / 2)
    dispatching.invisible = set()
    dispatching.run(UNKNOWN_SECONDS)
    assert (dispatching.labels(), dispatching.letters.sent) == ([A], [])
    assert dispatching.progress.fault() is None
    assert dispatching.partitions.committed == {SUBMISSIONS: 1}


def test_the_offset_of_an_unknown_submission_is_not_committed(dispatching: Dispatching) -> None:
    dispatching.invisible = {A}
    dispatching.submit(A, B)
    dispatching.run(1)
    dispatching.partitions.lose(SUBMISSIONS)
    dispatching.run(2 * UNKNOWN_SECONDS)
    assert (dispatching.letters.sent, dispatching.partitions.committed) == ([], {SUBMISSIONS: 0})


def test_a_submission_that_ended_while_the_process_stalled_is_not_sent(dispatching: Dispatching) -> None:
    """Another dispatcher has its partition by then and has handled the end, so the call would not be cancelled."""

    def stalled() -> None:
        dispatching.fetched = lambda: None
        dispatching.partitions.now += FRESH_SECONDS + 1
        dispatching.ended = {A}

    dispatching.fetched = stalled
    dispatching.submit(A, B)
    dispatching.run()
    assert (dispatching.labels(), dispatching.cancelled) == ([B], [])


def test_a_submission_that_ended_while_it_was_sent_is_cancelled(dispatching: Dispatching) -> None:
    def stalled(received: Received) -> Reply:
        dispatching.partitions.now += FRESH_SECONDS + 1
        dispatching.ended = {A}
        return dispatching.accept(received)

    dispatching.relay = stalled
    dispatching.submit(A, B)
    dispatching.run()
    assert (dispatching.labels(), dispatching.cancelled) == ([A, B], [A])


def test_a_dispatcher_that_does_not_stall_asks_the_api_once(dispatching: Dispatching) -> None:
    dispatching.submit(A, B)
    dispatching.run()
    assert (dispatching.labels(), dispatching.asked) == ([A, B], 1)


def test_callbacks_have_retries_of_their_own_and_the_dispatchers_token(dispatching: Dispatching) -> None:
    dispatching.submit(A)
    dispatching.run()
    [message] = dispatching.published
    for name in ("Upstash-Callback", "Upstash-Failure-Callback"):
        assert int(message["headers"][f"{name}-Retries"]) >= 1000
        assert message["headers"][f"{name}-Retry-Delay"] == CALLBACK_RETRY_DELAY
        proof = message["headers"][f"{name}-Forward-Authorization"].removeprefix("Bearer ")
        assert is_callback_token(proof, "i", A)
        assert not is_callback_token(proof, "i", B)
        assert not is_callback_token(proof, "other", A)
    assert message["headers"]["Upstash-Retries"] == "3"
    assert message["headers"]["Tidings-On-Unknown"] == "retry"


def test_a_snapshot_sends_no_webhook_and_cancels_nothing(dispatching: Dispatching) -> None:
    dispatching.end(A, "failed", op="r", webhook="https://hook.example/")
    dispatching.end(B, "failed", op="c", webhook="https://hook.example/")
    dispatching.run()
    assert dispatching.cancelled == [B]
    assert [json.loads(message["body"])["data"]["submission_id"] for message in dispatching.published] == [B]
    assert dispatching.partitions.committed == {RESULTS: 2}


@pytest.mark.parametrize(
    ("given", "asked"), [({}, "public"), ({"TIDINGS_WEBHOOK_ADDRESSES": "any"}, None)], ids=["by default", "any"]
)
def test_a_webhook_goes_to_public_addresses_unless_the_operator_says_otherwise(
    dispatching: Dispatching, given: dict[str, str], asked: str | None
) -> None:
    settings = DispatcherSettings.model_validate(
        {
            "TIDINGS_KAFKA": "nowhere", "TIDINGS_API_INTERNAL_URL": dispatching.url, "TIDINGS_INTERNAL_TOKEN": "i",
            "QSTASH_URL": dispatching.url, "QSTASH_TOKEN": "token", "QSTASH_CURRENT_SIGNING_KEY": "k" * 32,
            "TIDINGS_WEBHOOK_SECRET": SECRET,
        } | given
    )  # fmt: skip
    dispatching.end(A, "succeeded", webhook="https://hook.example/")
    [record] = [record for records in dispatching.partitions.poll(0).values() for record in records]
    change = decode_result(record.value)
    assert change is not None
    make_sender(settings, {}, Telemetry(DispatcherMetrics(CollectorRegistry()), log.get("test"))).end([change])
    [message] = dispatching.published
    assert message["destination"] == "https://hook.example/"
    assert message["headers"].get("Tidings-Addresses") == asked


def test_a_call_of_a_target_goes_to_every_address_that_the_operator_allows(dispatching: Dispatching) -> None:
    dispatching.submit(A)
    dispatching.run()
    [message] = dispatching.published
    assert "Tidings-Addresses" not in message["headers"]


@pytest.mark.parametrize("status", [400, 404, 405])
def test_a_relay_that_cannot_cancel_is_logged_and_delays_nothing(dispatching: Dispatching, status: int) -> None:
    dispatching.cancels = Reply(status, b'{"error": "no such filter"}')
    dispatching.end(A, "cancelled")
    dispatching.run()
    assert dispatching.partitions.committed == {RESULTS: 1}
    assert dispatching.counted("tidings_cancels") == 0
    assert dispatching.counted("tidings_cancels_refused") == 1


@pytest.mark.parametrize(
    ("op", "columns", "deduplication_id"),
    [("r", {}, B), ("c", {"nudged_at": "2026-01-01T00:00:00Z"}, f"{B}-20260101000000")],
    ids=["snapshot", "nudge"],
)
def test_a_nudged_submission_is_sent_only_if_the_relay_does_not_have_it(
    dispatching: Dispatching, op: str, columns: dict[str, str], deduplication_id: str
) -> None:
    dispatching.live = {A}
    dispatching.submit(A, B, op=op, **columns)
    dispatching.run()
    # The second time just before the call, as a dead letter may have been retried meanwhile.
    assert dispatching.asked_live == [[A, B], [B]]
    assert dispatching.labels() == [B]
    assert dispatching.published[0]["headers"]["Upstash-Deduplication-Id"] == deduplication_id
    assert dispatching.partitions.committed == {SUBMISSIONS: 2}


AGAIN = pytest.mark.parametrize(
    ("op", "columns"), [("r", {}), ("c", {"nudged_at": "2026-01-01T00:00:00Z"})], ids=["snapshot", "nudge"]
)


@AGAIN
def test_a_submission_whose_callback_is_a_dead_letter_is_not_called_again(
    dispatching: Dispatching, op: str, columns: dict[str, str]
) -> None:
    dispatching.callback_letters = {A: ["1-a"]}
    dispatching.submit(A, B, op=op, **columns)
    dispatching.run()
    assert dispatching.labels() == [B]
    assert dispatching.refused == {}
    assert dispatching.partitions.committed == {SUBMISSIONS: 2}


@AGAIN
def test_a_submission_whose_call_is_a_dead_letter_without_a_callback_fails_and_is_not_called_again(
    dispatching: Dispatching, op: str, columns: dict[str, str]
) -> None:
    dispatching.letters_at_relay = {A: "1-a"}
    dispatching.submit(A, B, op=op, **columns)
    dispatching.run()
    assert dispatching.labels() == [B]
    assert dispatching.refused == {A: "the call failed and its callback is lost; the dead letter of the relay is 1-a"}


def test_a_nudged_submission_that_has_ended_costs_one_request(dispatching: Dispatching) -> None:
    dispatching.ended = {A}
    dispatching.letters_at_relay = {A: "1-a"}
    dispatching.submit(A, op="r")
    dispatching.run()
    assert (dispatching.asked_live, dispatching.labels(), dispatching.refused) == ([[A]], [], {})


def test_a_submission_without_a_nudge_costs_no_request(dispatching: Dispatching) -> None:
    dispatching.live = {A}
    dispatching.submit(A)
    dispatching.run()
    assert dispatching.asked_live == []
    assert dispatching.labels() == [A]


def test_a_relay_without_labels_gets_every_nudged_submission(dispatching: Dispatching) -> None:
    dispatching.labels_reply = Reply(404)
    dispatching.submit(A, op="r")
    dispatching.run()
    assert dispatching.labels() == [A]


def test_a_webhook_has_the_submissions_label_and_is_not_cancelled_with_its_call(dispatching: Dispatching) -> None:
    """An erasure removes the webhook's content, and a repeated end cancels the messages with the submission's own
    label.
    """
    dispatching.end(A, "failed", webhook="https://hook.example/")
    dispatching.run()
    assert dispatching.labels() == [f"webhook-{A},webhook"]
    assert dispatching.cancelled == [A]


@pytest.mark.parametrize("status", [200, 404])
def test_an_erased_content_is_removed_at_the_relay_and_delays_nothing(dispatching: Dispatching, status: int) -> None:
    dispatching.removal_reply = Reply(status)
    dispatching.remove(A, "m1", "m2")
    dispatching.run()
    assert dispatching.removed == [{"labels": [A, f"webhook-{A}"], "messageIds": ["m1", "m2"]}]
    assert dispatching.partitions.committed == {REMOVALS: 1}


def test_removals_of_one_batch_are_one_request(dispatching: Dispatching) -> None:
    dispatching.remove(A, "m1")
    dispatching.remove(B)
    dispatching.remove(A, "m1", "m2")
    dispatching.run()
    labels = [A, f"webhook-{A}", B, f"webhook-{B}"]
    assert dispatching.removed == [{"labels": labels, "messageIds": ["m1", "m2"]}]
    assert dispatching.partitions.committed == {REMOVALS: 3}


def test_a_snapshot_removes_nothing_again(dispatching: Dispatching) -> None:
    """The reconciler removes what is not settled, when the relay has nothing in progress."""
    dispatching.remove(A, "m1", op="r")
    dispatching.remove(B, "m2")
    dispatching.run()
    assert dispatching.removed == [{"labels": [B, f"webhook-{B}"], "messageIds": ["m2"]}]
    assert dispatching.partitions.committed == {REMOVALS: 2}


def test_a_removal_waits_for_a_relay_that_is_down(dispatching: Dispatching) -> None:
    dispatching.removal_reply = Reply(503)
    dispatching.remove(A)
    dispatching.run()
    assert dispatching.partitions.committed == {}
    dispatching.removal_reply = Reply()
    dispatching.run(16)
    assert dispatching.partitions.committed == {REMOVALS: 1}


def test_a_relay_without_kinds_is_asked_to_cancel_all_messages_of_a_label(dispatching: Dispatching) -> None:
    dispatching.knows_kinds = False
    dispatching.end(A, "cancelled")
    dispatching.run()
    assert dispatching.cancelled == [A, A]
    assert dispatching.counted("tidings_cancels") == 1
