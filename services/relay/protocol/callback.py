"""Callbacks: after an attempt, its answer is sent to the sender as a separate message. Pure.

Source: the vendor's documentation of callbacks. `willRetry`, `nextRetryAt`, `startedAt`, `endedAt`, `error`,
`bodyTruncated` and `bodyUrl` are ours.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

import orjson

from services.relay.message import (
    INLINE_BYTES_MAX,
    Claimed,
    Draft,
    Encoded,
    Kind,
    Piece,
    Unencoded,
    Unstored,
)
from services.relay.options import NO_OPTIONS, NOTHING_REDACTED, CallbackOptions, Options, Redaction
from services.relay.outcome.outcome import Answer, Failed, Retry, Verdict
from services.relay.protocol.headers import listed
from services.relay.protocol.redaction import shown_headers


def callbacks(message: Claimed, answer: Answer, verdict: Verdict, *, ended_at: datetime, dlq_id: str) -> list[Draft]:
    """The messages that follow an attempt: the callback, and after the last failed attempt the failure callback."""
    drafts = []
    if message.options.callback is not None:
        content = _content(message, answer, verdict, ended_at)
        drafts.append(_draft(message, answer, message.options.callback, "callback", content))
    if message.options.failure_callback is not None and isinstance(verdict, Failed):
        content = _content(message, answer, verdict, ended_at) | {"dlqId": dlq_id}
        drafts.append(_draft(message, answer, message.options.failure_callback, "failure_callback", content))
    return drafts


def _draft(message: Claimed, answer: Answer, options: CallbackOptions, kind: Kind, content: dict[str, Any]) -> Draft:
    return Draft(
        url=options.url,
        method=options.method,
        headers={"Content-Type": "application/json"} | options.headers,
        body=_body(message, answer, content),
        kind=kind,
        protocol=message.protocol,
        delay_seconds=options.delay_seconds,
        retries_max=message.retries_max if options.retries_max is None else options.retries_max,
        timeout_ms=options.timeout_ms or 300_000,
        labels=message.labels,
        caller_ip=message.caller_ip,
        options=_options(options.retry_delay, message.options.redact),
    )


def _options(retry_delay: str | None, redact: Redaction) -> Options:
    """The callback contains the message's body and its answer, and so hides what the message hides."""
    if retry_delay is None and redact is NOTHING_REDACTED:
        return NO_OPTIONS
    return Options(retry_delay=retry_delay, redact=redact)


def _content(message: Claimed, answer: Answer, verdict: Verdict, ended_at: datetime) -> dict[str, Any]:
    """The callback without the two bodies, for which it has placeholders."""
    header = listed(answer.headers)
    content: dict[str, Any] = {
        "status": answer.status,
        "header": header,
        "body": "",
        "retried": message.retried,
        "maxRetries": message.retries_max,
        "sourceMessageId": message.id,
        "url": message.url,
        "method": message.method,
        # Keys are hidden, as the receiver of the callback is not always the sender.
        "sourceHeader": shown_headers(message.headers, message.options.redact),
        "sourceBody": "",
        "notBefore": milliseconds(message.not_before),
        "createdAt": milliseconds(message.created_at),
        "callerIP": message.caller_ip,
        "startedAt": milliseconds(message.started_at),
        "endedAt": milliseconds(ended_at),
        "willRetry": isinstance(verdict, Retry),
    }
    content |= _known(message)
    if message.protocol == 1:
        content["headers"] = header
    if isinstance(verdict, Retry):
        content["nextRetryAt"] = milliseconds(ended_at) + int(verdict.delay_seconds * 1000)
    if answer.error is not None:
        content["error"] = answer.error
    if answer.fate != "answered":
        content["fate"] = answer.fate
    if answer.truncated:
        content["bodyTruncated"] = True
    if answer.spooled is not None and answer.spooled.url is not None:
        content["bodyUrl"] = answer.spooled.url
    return content


def _body(message: Claimed, answer: Answer, content: dict[str, Any]) -> bytes | Unstored:
    """`content` with the two bodies: as sent when it fits into a row, otherwise in pieces to be stored."""
    stored = answer.spooled is not None or message.body_key is not None
    if not stored and _base64_bytes(answer.body) + _base64_bytes(message.body) <= INLINE_BYTES_MAX:
        content["body"] = base64.b64encode(answer.body).decode()
        content["sourceBody"] = base64.b64encode(message.body).decode()
        whole = orjson.dumps(content)
        if len(whole) <= INLINE_BYTES_MAX:
            return whole
    spooled = answer.spooled
    body = Unencoded(answer.body) if spooled is None else Encoded(spooled.key, spooled.shown)
    source = Unencoded(message.body) if message.body_key is None else Encoded(message.body_key, message.body_size)
    small = {name: value for name, value in content.items() if name not in {"body", "sourceBody"}}
    pieces: tuple[Piece, ...] = (
        orjson.dumps(small).removesuffix(b"}"), b',"body":"', body, b'","sourceBody":"', source, b'"}',
    )  # fmt: skip
    return Unstored(pieces)


def _base64_bytes(content: bytes) -> int:
    return 4 * ((len(content) + 2) // 3)


def _known(message: Claimed) -> dict[str, Any]:
    """The fields that only some messages have. The labels and the key are additions of ours."""
    named = {
        "topicName": message.topic,
        "endpointName": message.endpoint,
        "scheduleId": message.schedule_id,
        "flowControlKey": message.flow_key,
        "label": message.label,
        "labels": list(message.labels) or None,
    }
    return {name: value for name, value in named.items() if value is not None}


def milliseconds(moment: datetime) -> int:
    """Unix milliseconds."""
    return int(moment.timestamp() * 1000)
