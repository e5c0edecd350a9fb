"""The meaning of an attempt's answer: delivered, to be retried, or failed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, assert_never

import orjson

from services.relay.message import Claimed
from services.relay.options import Options
from services.relay.outcome.backoff import retry_delay_seconds

# Only this much of an answer is searched for an error code, as error bodies are small.
JUDGED_BYTES_MAX = 1024 * 1024
# The delay doubles with each put-off, so that a message always waits as long again as it has waited so far. At this
# limit, thirty thousand messages that return every 5 min are a hundred a second.
PUT_OFF_SECONDS_MAX = 300.0


@dataclass(frozen=True)
class Spooled:
    """An answer in stored pieces. The callback has `shown` bytes of its `size`. `url`, if any, leads to the whole
    answer.
    """

    key: str
    size: int
    shown: int
    url: str | None = None


# What is known of an attempt: it was answered; nothing of it was sent; or it was sent and no answer came. "not
# attempted": the relay lacked a resource of its own, so no attempt was made.
Fate = Literal["answered", "not sent", "unknown", "not attempted"]


@dataclass(frozen=True)
class Answer:
    """The destination's answer. `status` 0: no answer came, and `error` says why. Header names are as received.

    `spooled`: the answer is stored, and `body` has its beginning. `truncated`: the callback does not have all of it.
    `later_seconds`: the delay until the next try if the message was "not attempted".
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
    """`counted`: the retry counts against the message's retries."""

    delay_seconds: float
    counted: bool = True


@dataclass(frozen=True)
class Failed:
    pass


Verdict = Delivered | Retry | Failed


def judge(message: Claimed, answer: Answer, now: datetime) -> Verdict:
    """Decide the verdict of one attempt."""
    if answer.fate == "not attempted":
        doubled = 2.0 ** min(message.put_offs, 16)
        return Retry(min(max(answer.later_seconds, doubled), PUT_OFF_SECONDS_MAX), counted=False)
    headers = {name.lower(): value for name, value in answer.headers}
    options = message.options
    error = _error(options, answer)
    if 200 <= answer.status <= 299 and (options.error_field is None or not error):
        return Delivered()
    if message.retried >= message.retries_max or _final(message, answer, headers, error):
        return Failed()
    limited = answer.status == 429
    return Retry(retry_delay_seconds(message.retried, options.retry_delay, headers, now, limited=limited))


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
    if answer.status in message.options.final_status or (answer.fate == "unknown" and message.on_unknown == "fail"):
        return True
    if answer.status == 489 and headers.get("upstash-nonretryable-error", "").lower() == "true":
        return True
    codes = {str(error.get(key)) for key in ("code", "type")} if isinstance(error, dict) else set()
    return bool(codes & set(message.options.final_errors))


def _error(options: Options, answer: Answer) -> Any:
    field = options.error_field or ("error" if options.final_errors else None)
    if field is None or len(answer.body) > JUDGED_BYTES_MAX or answer.body.lstrip()[:1] != b"{":
        return None
    try:
        content = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return None
    return content.get(field) if isinstance(content, dict) else None
