"""Losses between any two processes are caused on purpose, and repaired by the reconciler: tests from outside, on a
stack with short times.
"""

from __future__ import annotations

import signal

import pytest
import requests

from tests.acceptance.checkouts import Checkout
from tests.acceptance.stacks import Stack
from tests.traces import tables_with
from tests.wait import until
from tidings.contract.topics import RESULTS

WAITING_CALLBACKS = (
    "SELECT count(*) FROM relay.messages WHERE label = %s AND kind <> 'message' AND state = 'waiting' AND retried > 0"
)


@pytest.fixture
def hasty(checkout: Checkout) -> Stack:
    return checkout.stack


def test_a_relay_message_that_vanished_is_dispatched_again(hasty: Stack) -> None:
    id_ = hasty.submit("vanished", latency_seconds=90)
    until(lambda: hasty.count("SELECT count(*) FROM relay.messages WHERE label = %s AND state = 'active'", id_), 30)
    hasty.change("DELETE FROM relay.messages WHERE label = %s", id_)
    until(lambda: hasty.count("SELECT count(*) FROM relay.messages WHERE label = %s", id_), 60)
    assert hasty.shown(id_)["outcome"] is None
    hasty.call("DELETE", f"/v1/submissions/{id_}")
    assert len(hasty.completions({id_})[id_]) == 1


def test_a_change_that_no_notifier_read_is_emitted_with_the_same_id(hasty: Stack) -> None:
    hasty.process("services.notifier").send_signal(signal.SIGSTOP)
    try:
        # The answer to the current fetch is in the notifier's socket. It may contain the first result, and not the
        # next.
        fetched = hasty.submit("fetched")
        until(lambda: fetched in hasty.keys(RESULTS), 60)
        id_ = hasty.submit("unread")
        until(lambda: id_ in hasty.keys(RESULTS), 60)
        hasty.delete_records(RESULTS)
    finally:
        hasty.process("services.notifier").send_signal(signal.SIGCONT)
    [event] = hasty.completions({id_}, 120)[id_]
    stored = hasty.value("SELECT event_id::text FROM tidings.results WHERE submission_id = %s", id_)
    assert event["headers"]["ce_id"] == stored


def test_an_answer_that_ended_in_dead_letters_is_delivered_by_the_reconciler(hasty: Stack) -> None:
    id_ = hasty.submit("dead letter", latency_seconds=2.0)
    until(lambda: hasty.count("SELECT count(*) FROM relay.messages WHERE label = %s AND state = 'active'", id_), 30)
    with hasty.without_api():
        waiting = "SELECT count(*) FROM relay.messages WHERE label = %s AND kind = 'callback' AND state = 'waiting'"
        until(lambda: hasty.count(waiting, id_), 60)
        # As if its thousand retries were used up: one statement in place of days of an outage.
        hasty.change("UPDATE relay.messages SET retries_max = 0 WHERE label = %s AND kind = 'callback'", id_)
        until(lambda: hasty.count("SELECT count(*) FROM relay.dead_letters WHERE %s = ANY (labels)", id_), 60)
    assert hasty.ended(id_, 90)["outcome"] == "succeeded"
    assert len(hasty.completions({id_})[id_]) == 1


def test_a_call_that_is_a_dead_letter_without_a_callback_is_not_made_again(hasty: Stack) -> None:
    id_ = hasty.submit("given up", latency_seconds=3.0, faults=["400"], call_id="given-up")
    until(lambda: hasty.count("SELECT count(*) FROM relay.messages WHERE label = %s AND state = 'active'", id_), 30)
    with hasty.without_api():
        # The callbacks of the attempt and of the message.
        until(lambda: hasty.count(WAITING_CALLBACKS, id_) == 2, 60)
        hasty.change("DELETE FROM relay.messages WHERE label = %s AND kind <> 'message'", id_)
        assert hasty.count("SELECT count(*) FROM relay.dead_letters WHERE %s = ANY (labels)", id_) == 1
    shown = hasty.ended(id_, 90)
    assert (shown["outcome"], hasty.calls("given-up")["received"]) == ("failed", 1)
    assert shown["reason"].startswith("the call failed and its callback is lost")
    assert hasty.count("SELECT count(*) FROM tidings.submission_nudges WHERE id = %s", id_) >= 1


def test_an_answer_that_arrives_after_the_erasure_of_its_submission_is_erased_too(hasty: Stack) -> None:
    secret = "private-prompt-of-somebody"
    id_ = hasty.submit(secret, latency_seconds=2.0)
    url = hasty.home.public_environment()["TIDINGS_DATABASE_URL"]
    until(lambda: hasty.count("SELECT count(*) FROM relay.messages WHERE label = %s AND state = 'active'", id_), 30)
    with hasty.without_api():
        waiting = "SELECT count(*) FROM relay.messages WHERE label = %s AND kind = 'callback' AND state = 'waiting'"
        until(lambda: hasty.count(waiting, id_), 60)
        hasty.change("UPDATE relay.messages SET due_at = now() + interval '1 hour' WHERE label = %s", id_)
    hasty.call("DELETE", f"/v1/submissions/{id_}")
    assert hasty.call("DELETE", f"/v1/submissions/{id_}/content").status_code == 200
    # The negative control: the callback that is not yet delivered contains the answer.
    assert tables_with(url, secret.encode()).keys() == {"relay.messages"}
    removals = "SELECT count(*) FROM tidings.content_removals WHERE submission_id = %s"
    assert hasty.count(removals, id_) == 1
    hasty.change("UPDATE relay.messages SET due_at = now() WHERE label = %s", id_)
    attempts = "SELECT count(*) FROM tidings.attempts WHERE submission_id = %s"
    until(lambda: hasty.count(attempts, id_), 60)
    until(lambda: not tables_with(url, secret.encode()), 60)
    until(lambda: hasty.count(removals + " AND settled_at IS NULL", id_) == 0, 60)
    assert hasty.shown(id_)["outcome"] == "cancelled"


def test_a_callback_that_fails_after_the_erasure_of_its_submission_is_erased_too(hasty: Stack) -> None:
    secret = "private-prompt-of-a-dead-letter"
    id_ = hasty.submit(secret, latency_seconds=2.0)
    url = hasty.home.public_environment()["TIDINGS_DATABASE_URL"]
    until(lambda: hasty.count("SELECT count(*) FROM relay.messages WHERE label = %s AND state = 'active'", id_), 30)
    with hasty.without_api():
        waiting = "SELECT count(*) FROM relay.messages WHERE label = %s AND kind = 'callback' AND state = 'waiting'"
        until(lambda: hasty.count(waiting, id_), 60)
        hasty.change(
            "UPDATE relay.messages SET due_at = now() + interval '1 hour', retries_max = 0 WHERE label = %s", id_
        )
    hasty.call("DELETE", f"/v1/submissions/{id_}")
    assert hasty.call("DELETE", f"/v1/submissions/{id_}/content").status_code == 200
    told = "SELECT count(*) FROM relay.messages WHERE label = %s AND kind = 'message' AND body = ''"
    until(lambda: hasty.count(told, id_), 60)
    with hasty.without_api():
        hasty.change("UPDATE relay.messages SET due_at = now() WHERE label = %s", id_)
        until(lambda: hasty.count("SELECT count(*) FROM relay.dead_letters WHERE %s = ANY (labels)", id_), 60)
        until(lambda: not tables_with(url, secret.encode()), 60)


def test_a_webhook_that_fails_after_the_erasure_of_its_submission_is_erased_too(hasty: Stack) -> None:
    """The relay calls no such address, so the webhook, which contains the answer, becomes a dead letter."""
    secret = "private-prompt-in-a-webhook"
    content = {
        "target": "demo-images", "input": {"prompt": secret, "x_provider": {"latency_seconds": 0.1}},
        "webhook": f"http://localhost:{hasty.home.ports['controller']}/",
    }  # fmt: skip
    id_ = str(hasty.call("POST", "/v1/submissions", json=content).json()["id"])
    assert hasty.ended(id_)["outcome"] == "succeeded"
    url = hasty.home.public_environment()["TIDINGS_DATABASE_URL"]
    webhook = "FROM relay.messages WHERE label = 'webhook-' || %s AND ended_at IS NULL"
    until(lambda: hasty.count("SELECT count(*) " + webhook, id_), 60)
    # The negative control: the address of the picture contains the prompt.
    assert secret.encode() in bytes(hasty.value("SELECT body " + webhook, id_))
    assert hasty.call("DELETE", f"/v1/submissions/{id_}/content").status_code == 200

    def given_up() -> int:
        hasty.change(
            "UPDATE relay.messages SET due_at = now(), retries_max = 0"
            " WHERE label = 'webhook-' || %s AND state = 'waiting'", id_,
        )  # fmt: skip
        return hasty.count(
            "SELECT count(*) FROM relay.messages WHERE label = 'webhook-' || %s AND state = 'failed'", id_
        )

    until(given_up, 60)
    until(lambda: not tables_with(url, secret.encode()), 60)


def test_a_submission_past_its_expiry_expires_once_and_its_call_is_cancelled(hasty: Stack) -> None:
    content = {
        "target": "demo-images", "expires_in": 2,
        "input": {"prompt": "late", "x_provider": {"latency_seconds": 90, "call_id": "expiring"}},
    }  # fmt: skip
    answer = hasty.call("POST", "/v1/submissions", json=content)
    id_ = answer.json()["id"]
    shown = hasty.ended(id_)
    assert (shown["outcome"], shown["reason"]) == ("expired", "not ended within its expires_in")
    assert shown["expires_at"] > shown["created_at"]
    [event] = hasty.completions({id_})[id_]
    assert event["headers"]["ce_type"] == "dev.tidings.submission.expired"
    live = "SELECT count(*) FROM relay.messages WHERE label = %s AND ended_at IS NULL"
    until(lambda: hasty.count(live, id_) == 0, 30)


def test_the_reconciler_logs_its_actions(hasty: Stack) -> None:
    text = requests.get(f"{hasty.home.url('reconciler')}/metrics", timeout=10).text
    counted = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line.startswith("tidings_")}
    assert counted["tidings_dispatched_again_total"] >= 1
    assert counted["tidings_emitted_again_total"] >= 1
    assert counted["tidings_callbacks_driven_total"] >= 1
    assert counted["tidings_expired_total"] == 1
