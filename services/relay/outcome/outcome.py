"""What an attempt's answer means: delivered, to be tried again, or failed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, assert_never

import orjson

from services.relay.message import Claimed
from services.relay.outcome.backoff import retry_delay_seconds

# Only so much of an answer is looked at for an error code: error bodies are small.
JUDGED_BYTES_MAX = 1024 * 1024
# What is put off again and again waits twice as long each time: so it has waited for as long as it is still to wait.
# Thirty thousand messages that come again every 5 min are a hundred a second.
PUT_OFF_SECONDS_MAX = 300.0


@dataclass(frozen=True)
class Spooled:
    """An answer in stored pieces: `shown` bytes of its `size` go into the callback, and `url`, if any, leads to the whole."""

    key: str
    size: int
    shown: int
    url: str | None = None


# What is known of an attempt: its answer; that nothing of it was sent; or neither, as it was sent and no answer came.
# "not attempted": the relay lacked something of its own, so that there was no attempt at all.
Fate = Literal["answered", "not sent", "unknown", "not attempted"]


@dataclass(frozen=True)
class Answer:
    """What the destination said; `status` 0: nothing, and `error` says why. Header names as they came.

    `spooled`: the answer is stored, and `body` has its beginning. `truncated`: the callback does not have all of it.
    `later_seconds`: when to come again if it was "not attempted".
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    error: str | None = None
    truncated: bool = False
    spooled: Spooled | None = None
    fate: Fate = "answered"
    later_seconds: float = 0.0


@dataclass(frozen=True)
class Delivered:
    pass


@dataclass(frozen=True)
class Retry:
    """`counted`: as one of the message's retries."""

    delay_seconds: float
    counted: bool = True


@dataclass(frozen=True)
class Failed:
    pass


Verdict = Delivered | Retry | Failed


def judge(message: Claimed, answer: Answer, now: datetime) -> Verdict:
    """The verdict over one attempt."""
    if answer.fate == "not attempted":
        doubled = 2.0 ** min(message.put_offs, 16)
        return Retry(min(max(answer.later_seconds, doubled), PUT_OFF_SECONDS_MAX), counted=False)
    headers = {name.lower(): value for name, value in answer.headers}
    error = _error(message, answer)
    if 200 <= answer.status <= 299 and (message.error_field is None or not error):
        return Delivered()
    if message.retried >= message.retries_max or _final(message, answer, headers, error):
        return Failed()
    limited = answer.status == 429
    return Retry(retry_delay_seconds(message.retried, message.retry_delay, headers, now, limited=limited))


def state_of(verdict: Verdict) -> str:
    match verdict:
        case Delivered():
            return "delivered"
        case Retry():
            return "waiting"
        case Failed():
            return "failed"
        case _:
            assert_never(verdict)


def _final(message: Claimed, answer: Answer, headers: Mapping[str, str], error: Any) -> bool:
    if answer.status in message.final_status or (answer.fate == "unknown" and message.on_unknown == "fail"):
        return True
    if answer.status == 489 and headers.get("upstash-nonretryable-error", "").lower() == "true":
        return True
    codes = {str(error.get(key)) for key in ("code", "type")} if isinstance(error, dict) else set()
    return bool(codes & set(message.final_errors))


def _error(message: Claimed, answer: Answer) -> Any:
    looked_for = message.error_field or ("error" if message.final_errors else None)
    if looked_for is None or len(answer.body) > JUDGED_BYTES_MAX or answer.body.lstrip()[:1] != b"{":
        return None
    try:
        content = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return None
    return content.get(looked_for) if isinstance(content, dict) else None
