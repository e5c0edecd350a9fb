"""The end of one attempt: its verdict, its log rows, and its callbacks, all committed in one transaction. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from services.relay.message import INLINE_BYTES_MAX, Claimed, Draft, Stored, Unstored
from services.relay.outcome.backoff import requested_pause_seconds
from services.relay.outcome.outcome import Answer, Delivered, Failed, Retry, Verdict, judge
from services.relay.protocol.callback import callbacks
from services.relay.protocol.headers import listed, readable

# The log keeps this much of a failed attempt's answer. The callback and the dead letter have all of it.
LOGGED_BYTES_MAX = 2048


@dataclass(frozen=True)
class Logged:
    """One row of the log. `status` None: no answer came."""

    at: datetime
    state: str
    next_due_at: datetime | None = None
    status: int | None = None
    error: str | None = None
    header: dict[str, list[str]] | None = None
    body: bytes | None = None

    @property
    def answer_bytes(self) -> int:
        """The size of header and body."""
        if self.header is None:
            return 0 if self.body is None else len(self.body)
        header_bytes = sum(len(name) + sum(map(len, values)) for name, values in self.header.items())
        return len(self.body or b"") + header_bytes


@dataclass(frozen=True)
class Ending:
    """`cool_until`: the time until which the provider asked for a pause of the message's whole flow key. `answered`:
    the provider accepts calls. `put_off`: no attempt was made. `unused_keys`: stored bodies that the ending does not
    use, and that nothing needs after it.
    """

    message: Claimed
    answer: Answer
    verdict: Verdict
    callbacks: Sequence[Draft]
    dlq_id: str
    logged: Sequence[Logged]
    cool_until: datetime | None
    answered: bool
    put_off: bool = False
    unused_keys: Sequence[str] = ()

    @property
    def composing(self) -> bool:
        """Whether large bodies, of callbacks or of the dead letter's answer, must be stored before this ending is
        committed.
        """
        return self.burying or (
            bool(self.callbacks) and any(isinstance(draft.body, Unstored) for draft in self.callbacks)
        )

    @property
    def body_bytes(self) -> int:
        """The size of the bodies that this ending holds in memory."""
        size = len(self.message.body) + len(self.answer.body)
        return size + sum(draft.inline_bytes for draft in self.callbacks) if self.callbacks else size

    @property
    def burying(self) -> bool:
        """Whether the ending makes a dead letter whose answer is too large for its row."""
        return len(self.answer.body) > INLINE_BYTES_MAX and isinstance(self.verdict, Failed)

    @property
    def stored_keys(self) -> list[str]:
        """The stored bodies that this ending refers to or leaves unused. After its commit, those that no row names may
        be removed.
        """
        spooled = self.answer.spooled
        if spooled is None and self.message.body_key is None and not self.callbacks and not self.unused_keys:
            return []
        keys = [*self.unused_keys, self.message.body_key, None if spooled is None else spooled.key]
        bodies = [draft.body for draft in self.callbacks]
        return [key for key in keys if key is not None] + [body.key for body in bodies if isinstance(body, Stored)]


def ending_of(message: Claimed, answer: Answer, now: datetime, *, final: bool = False) -> Ending:
    """The ending that `answer` leads to. `final` fails the message whatever retries it has left."""
    answer = _readable(answer)
    verdict = Failed() if final else judge(message, answer, now)
    dlq_id = dead_letter_id(now, message.id)
    if isinstance(verdict, Retry) and not verdict.counted:
        # No attempt was made, so there is none to report.
        return Ending(message, answer, verdict, (), dlq_id, (), None, answered=False, put_off=True)
    cool_until = cooling(message, answer, now)
    follow = _follow(message, answer, verdict, now, dlq_id)
    answered = answer.status != 0 and cool_until is None
    logged = _logged(message, answer, verdict, now)
    return Ending(message, answer, verdict, follow, dlq_id, logged, cool_until, answered)


def unjudged(message: Claimed, answer: Answer, now: datetime) -> Ending:
    """The end of a message whose answer a fault in the relay kept from being judged: it fails, and its dead letter can
    be retried.
    """
    told = Answer(
        answer.status, (), b"", error="a fault of the relay: the answer could not be judged", fate=answer.fate
    )
    logged = [Logged(now, "FAILED", status=answer.status or None, error=told.error)]
    dlq_id = dead_letter_id(now, message.id)
    follow: Sequence[Draft] = ()
    # This call may raise the same fault.
    with suppress(Exception):
        follow = _follow(message, told, Failed(), now, dlq_id)
    unused = () if answer.spooled is None else (answer.spooled.key,)
    return Ending(message, told, Failed(), follow, dlq_id, logged, None, answered=False, unused_keys=unused)


def cooling(message: Claimed, answer: Answer, now: datetime) -> datetime | None:
    """The time until which the flow key pauses for all messages, after a 429, or a 503 that names a time."""
    if message.flow_key is None or message.kind != "message" or answer.status not in {429, 503}:
        return None
    seconds = requested_pause_seconds({name.lower(): value for name, value in answer.headers}, now)
    return None if not seconds else now + timedelta(seconds=seconds)


def _follow(message: Claimed, answer: Answer, verdict: Verdict, now: datetime, dlq_id: str) -> Sequence[Draft]:
    options = message.options
    if options.callback is None and options.failure_callback is None:
        return ()
    follow = callbacks(message, answer, verdict, ended_at=now, dlq_id=dlq_id)
    if message.queue is not None:
        # The queue continues only when these callbacks have ended too.
        follow = [replace(draft, parent_id=message.id) for draft in follow]
    return follow


def _readable(answer: Answer) -> Answer:
    """`answer` without the characters that are not valid text, which JSON cannot represent."""
    if all(value.isascii() for _, value in answer.headers) and (answer.error is None or answer.error.isascii()):
        return answer
    headers = tuple((name, readable(value)) for name, value in answer.headers)
    error = None if answer.error is None else answer.error.encode(errors="replace").decode()
    return replace(answer, headers=headers, error=error)


def header_lists(answer: Answer) -> dict[str, list[str]]:
    """The answer's headers in the protocol's form."""
    return listed(answer.headers)


def dead_letter_id(now: datetime, message_id: str) -> str:
    """`<Unix ms>-<part of the message's id>`: sortable by time, like the vendor's ids, and without a shared counter."""
    return f"{int(now.timestamp() * 1000)}-{message_id[-12:]}"


def _logged(message: Claimed, answer: Answer, verdict: Verdict, now: datetime) -> list[Logged]:
    # See `claim` in messages.sql.
    begun = [Logged(_begun_at(message, now), "ACTIVE")] if message.put_offs else []
    return begun + _ended(answer, verdict, now)


def _begun_at(message: Claimed, now: datetime) -> datetime:
    """The time at which the start is logged: `now` if the start is 12 hours old. No call is older, and for a message
    taken over later, the log may no longer have a partition for the day.
    """
    return message.started_at if now - message.started_at < timedelta(hours=12) else now


def _ended(answer: Answer, verdict: Verdict, now: datetime) -> list[Logged]:
    status = answer.status or None
    if isinstance(verdict, Delivered):
        return [Logged(now, "DELIVERED", status=status)]
    failed = Logged(
        now,
        "ERROR",
        status=status,
        error=answer.error,
        header=header_lists(answer),
        body=answer.body[:LOGGED_BYTES_MAX],
    )
    if isinstance(verdict, Retry):
        due = now.astimezone(UTC) + timedelta(seconds=verdict.delay_seconds)
        return [failed, Logged(now, "RETRY", next_due_at=due, status=status, error=answer.error)]
    # The last row has the answer too, so that a reader who filters by FAILED sees it.
    return [failed, replace(failed, state="FAILED")]
