"""Every option of a message is read, stored, shown, and replaced by the retry of a dead letter."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from services.relay.message import Claimed, Draft
from services.relay.options import (
    NO_OPTIONS,
    OPTION_NAMES,
    CallbackOptions,
    FlowControl,
    Options,
    Redaction,
    StartedCallback,
)
from services.relay.protocol.answers import dead_letter_object, event_object, message_object, schedule_object
from services.relay.protocol.overriding import overridden
from services.relay.protocol.publishing import draft, options_of
from services.relay.protocol.views import DeadLetterView, EventView, MessageView, ScheduleView
from services.relay.store.encryption import Encryption
from services.relay.store.message_views import message_view
from services.relay.store.sealing import Sealer, UnreadableError, claimed_of, draft_of, open_sealed

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ENCRYPTION = Encryption(Fernet.generate_key().decode())


@dataclass(frozen=True)
class Example:
    """Headers that set an option, and what `GET /v2/messages/{id}` then shows; nothing, for the reason `hidden`."""

    headers: dict[str, str]
    shown: dict[str, Any] | None = None
    hidden: str = ""


EXAMPLES = {
    "callback": Example({"Upstash-Callback": "https://c.example/"}, {"callback": "https://c.example/"}),
    "failure_callback": Example(
        {"Upstash-Failure-Callback": "https://f.example/"}, {"failureCallback": "https://f.example/"}
    ),
    "started_callback": Example(
        {"Tidings-Started-Callback": "https://s.example/", "Tidings-Started-Data": "token"}, hidden="it has a token"
    ),
    "retry_delay": Example({"Upstash-Retry-Delay": "1000 * retried"}, {"retryDelayExpression": "1000 * retried"}),
    "flow": Example(
        {"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": "rate=3", "Tidings-Cooling": "off"},
        {"flowControlKey": "k", "rate": 3, "period": 1},
    ),
    "redact": Example(
        {"Upstash-Redact-Fields": "header[X-A]"},
        {"header": {"X-A": ["REDACTED:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"]}},
    ),
    "final_status": Example({"Tidings-Final-Status": "400, 401"}, hidden="only the judgement of an answer needs it"),
    "final_errors": Example({"Tidings-Final-Error": "no_quota"}, hidden="only the judgement of an answer needs it"),
    "error_field": Example({"Tidings-Error-Field": "fault"}, hidden="only the judgement of an answer needs it"),
    "public_only": Example({"Tidings-Addresses": "public"}, hidden="only the call needs it"),
}
EVERY = pytest.mark.parametrize("name", sorted(OPTION_NAMES))
# These are combined with those of the dead letter: see test_overriding.py.
COMBINED = {"callback", "failure_callback", "redact"}


def published(name: str) -> Draft:
    headers = {"Upstash-Forward-X-A": "1"} | EXAMPLES[name].headers
    return draft("https://a.example", options_of(headers, ""), b"{}", now_seconds=0.0)


def row_of(sealed: bytes) -> dict[str, Any]:
    """A row of relay.messages."""
    return {
        "id": "msg_1", "kind": "message", "protocol": 2, "url": "https://a.example", "method": "POST", "body": b"{}",
        "body_key": None, "body_size": 2, "body_sha256": None, "sealed": sealed, "retries_max": 3, "timeout_ms": 1000,
        "on_unknown": "retry", "caller_ip": "", "labels": [], "queue": None, "flow_key": None, "topic": None,
        "endpoint": None, "schedule_id": None, "parent_id": None, "created_at": NOW, "not_before": NOW, "due_at": NOW,
        "retried": 0, "started_at": NOW, "put_offs": None, "state": "active",
    }  # fmt: skip


def view_of(message: Draft) -> MessageView:
    return message_view(ENCRYPTION, row_of(Sealer(ENCRYPTION).seal(message)))


def claimed(sealed: bytes) -> Claimed:
    [found] = claimed_of(ENCRYPTION, [row_of(sealed)])
    return found


@EVERY
def test_an_option_is_read_from_its_header(name: str) -> None:
    assert getattr(published(name).options, name) != getattr(NO_OPTIONS, name)
    assert replace(published(name).options, **{name: getattr(NO_OPTIONS, name)}) == NO_OPTIONS


@EVERY
def test_an_option_is_the_same_when_claimed_shown_and_retried(name: str) -> None:
    message = published(name)
    sealed = Sealer(ENCRYPTION).seal(message)
    assert claimed(sealed).options == message.options
    assert draft_of(ENCRYPTION, row_of(sealed)).options == message.options
    assert view_of(message).options == message.options
    assert open_sealed(ENCRYPTION, sealed) == (message.headers, message.options, False)


@EVERY
def test_an_option_is_shown_by_messages_dead_letters_schedules_and_events(name: str) -> None:
    view, expected = view_of(published(name)), EXAMPLES[name].shown
    event = EventView(NOW, "msg_1", "ACTIVE", "https://a.example", headers=view.headers, options=view.options)
    given = {"upstash-forward-x-a": "1"} | options_of(EXAMPLES[name].headers, "")
    schedule = ScheduleView("scd_1", "* * * * *", "https://a.example", given, b"", NOW)
    for content in (
        message_object(view, NOW),
        dead_letter_object(DeadLetterView("1-0", view, 500, {}, b"")),
        event_object(event),
        schedule_object(schedule),
    ):
        assert {key: content.get(key) for key in expected or {}} == (expected or {})
    assert (expected is None) == bool(EXAMPLES[name].hidden)


@EVERY
def test_the_retry_of_a_dead_letter_replaces_an_option(name: str) -> None:
    original = draft("https://a.example", {}, b"{}", now_seconds=0.0)
    assert overridden(original, EXAMPLES[name].headers, 0.0).options == published(name).options
    if name not in COMBINED:
        assert overridden(published(name), {}, 0.0).options == published(name).options


def test_defaults_are_not_stored_so_that_an_older_version_reads_the_message() -> None:
    plain = draft("https://a.example", options_of({"Upstash-Retries": "1"}, ""), b"{}", now_seconds=0.0)
    assert ENCRYPTION.open(Sealer(ENCRYPTION).seal(plain)) == {"headers": {}}
    assert ENCRYPTION.open(Sealer(ENCRYPTION).seal(published("public_only"))) == {
        "headers": {"X-A": "1"},
        "public_only": True,
    }


# As version 1.1 stored them: a message that was accepted before an upgrade is sent after it.
STORED_BEFORE = {
    "headers": {"X-A": "1"}, "retry_delay": "1000", "error_field": "fault", "final_status": [400],
    "final_errors": ["no_quota"],
    "callback": {"url": "https://c.example/", "method": "PUT", "headers": {"X": "1"}, "retries_max": 2,
                 "retry_delay": None, "timeout_ms": 5000, "delay_seconds": 0.0},
    "failure_callback": None,
    "flow": {"key": "k", "parallelism": None, "rate": 3, "period_seconds": 60, "cooling": False},
    "started_callback": {"url": "https://s.example/", "data": "token"}, "public_only": True,
    "redact": {"body": True, "all_headers": False, "headers": ["x-b"]},
}  # fmt: skip


def test_options_that_were_stored_before_they_had_a_class_are_read() -> None:
    expected = Options(
        callback=CallbackOptions("https://c.example/", "PUT", {"X": "1"}, retries_max=2, timeout_ms=5000),
        started_callback=StartedCallback("https://s.example/", "token"),
        retry_delay="1000",
        flow=FlowControl("k", None, 3, 60, cooling=False),
        redact=Redaction(body=True, headers=frozenset({"x-b"})),
        final_status=(400,),
        final_errors=("no_quota",),
        error_field="fault",
        public_only=True,
    )
    sealed = ENCRYPTION.seal(STORED_BEFORE)
    assert (claimed(sealed).options, claimed(sealed).headers) == (expected, {"X-A": "1"})
    assert (claimed(sealed).newer, claimed(sealed).fault) == (False, None)
    assert draft_of(ENCRYPTION, row_of(sealed)).options == expected
    assert message_view(ENCRYPTION, row_of(sealed)).options == expected


def test_a_message_with_an_option_of_a_newer_version_is_left_to_that_version() -> None:
    sealed = ENCRYPTION.seal({"headers": {"X-A": "1"}, "retry_delay": "1000", "of_a_newer_version": True})
    assert claimed(sealed).newer
    assert message_view(ENCRYPTION, row_of(sealed)).options == Options(retry_delay="1000")
    with pytest.raises(UnreadableError, match="does not know"):
        draft_of(ENCRYPTION, row_of(sealed))


def how_to_add_one() -> str:
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    return contributing.partition("## Add a relay option\n")[2].partition("\n## ")[0]


def test_a_new_option_touches_the_six_files_that_the_guide_names() -> None:
    listed = re.findall(r"^\d\. `([^`]+)`", how_to_add_one(), re.MULTILINE)
    assert len(listed) == 6
    assert [path for path in listed if not (ROOT / path).is_file()] == []
    assert str(Path(__file__).relative_to(ROOT)) in listed
