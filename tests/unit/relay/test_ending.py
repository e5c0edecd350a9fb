"""The consequences of an attempt's end, whatever the destination's answer contains."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from services.relay.ending import ending_of, header_lists, unjudged
from services.relay.outcome.outcome import PUT_OFF_SECONDS_MAX, Answer, Delivered, Failed, Retry, Spooled
from services.relay.store import written
from tests.unit.relay.test_callbacks import ANSWER, MESSAGE, NOW, content_of


@pytest.mark.parametrize(
    ("came", "told"),
    [
        ("plain", "plain"),
        ("naïve ✓", "naïve ✓"),
        (b"caf\xe9".decode(errors="surrogateescape"), "café"),
        (b"\xff\x00".decode(errors="surrogateescape"), "ÿ\0"),
    ],
)
def test_headers_become_text_whatever_their_bytes_are(came: str, told: str) -> None:
    ending = ending_of(MESSAGE, Answer(200, (("X", came),), b""), NOW)
    assert isinstance(ending.verdict, Delivered)
    assert header_lists(ending.answer) == {"X": [told]}
    assert content_of(ending.callbacks[0])["header"] == {"X": [told]}


def test_an_error_that_is_not_valid_text_is_reported() -> None:
    ending = ending_of(MESSAGE, Answer(0, (), b"", error="bad \udcff", fate="unknown"), NOW)
    assert content_of(ending.callbacks[0])["error"] == "bad ?"
    orjson.dumps([row.error for row in ending.logged])


def test_an_answer_that_could_not_be_judged_has_a_callback() -> None:
    ending = unjudged(replace(MESSAGE, queue="q"), ANSWER, NOW)
    assert isinstance(ending.verdict, Failed)
    assert [draft.kind for draft in ending.callbacks] == ["callback", "failure_callback"]
    content = content_of(ending.callbacks[1])
    assert (content["status"], content["body"], content["dlqId"]) == (503, "", ending.dlq_id)
    assert "could not be judged" in content["error"]
    assert {draft.parent_id for draft in ending.callbacks} == {MESSAGE.id}


def test_the_stored_body_of_an_answer_that_could_not_be_judged_is_released() -> None:
    spooled = replace(ANSWER, spooled=Spooled("pieces", 1_000_000, 1_000_000))
    assert unjudged(MESSAGE, spooled, NOW).stored_keys == ["pieces"]
    assert unjudged(MESSAGE, ANSWER, NOW).stored_keys == []


def test_a_message_whose_callback_cannot_be_composed_ends_nevertheless() -> None:
    ending = unjudged(replace(MESSAGE, url="\udcff"), ANSWER, NOW)
    assert (isinstance(ending.verdict, Failed), ending.callbacks) == (True, ())


def test_a_message_without_an_attempt_is_repeated_without_a_retry_and_without_a_callback() -> None:
    answer = Answer(0, (), b"", error="this relay has too many open files", fate="not attempted", later_seconds=1.5)
    last = replace(MESSAGE, retried=MESSAGE.retries_max, on_unknown="fail")
    ending = ending_of(last, answer, NOW)
    assert ending.verdict == Retry(1.5, counted=False)
    assert ending.callbacks == ()
    assert (ending.put_off, ending.logged) == (True, ())
    verdict = written.verdict(ending)
    assert (verdict["state"], verdict["retried"], verdict["delay_seconds"]) == ("waiting", last.retried, 1.5)


def test_a_message_that_is_put_off_repeatedly_waits_for_as_long_as_it_has_waited() -> None:
    answer = Answer(0, (), b"", error="no place", fate="not attempted", later_seconds=1.5)
    delays = []
    for put_offs in range(11):
        verdict = ending_of(replace(MESSAGE, put_offs=put_offs), answer, NOW).verdict
        assert isinstance(verdict, Retry)
        delays.append(verdict.delay_seconds)
    assert delays == [1.5, 2, 4, 8, 16, 32, 64, 128, 256, PUT_OFF_SECONDS_MAX, PUT_OFF_SECONDS_MAX]


def test_the_log_has_the_start_of_an_attempt_that_was_put_off_before() -> None:
    answer = Answer(500, (), b"")
    states = [
        [row.state for row in ending_of(one, answer, NOW).logged] for one in (MESSAGE, replace(MESSAGE, put_offs=2))
    ]
    assert states[1] == ["ACTIVE", *states[0]]
    assert ending_of(replace(MESSAGE, put_offs=2), answer, NOW).logged[0].at == MESSAGE.started_at
