"""The parameters of the statements of messages.sql: rows as JSON."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from services.relay.ending import Ending, Logged, header_lists
from services.relay.message import INLINE_BYTES_MAX, Body, Claim, Claimed, Draft, Stored, Unstored
from services.relay.options import FlowControl
from services.relay.outcome.outcome import Retry, state_of

# An escaped NUL, but not an escaped backslash before the text u0000.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def as_json(rows: Sequence[dict[str, Any]]) -> str:
    """All of `rows` as one text, without NUL: Postgres cannot store it, and a header of a faulty
    server may contain it.
    """
    text = orjson.dumps(rows).decode()
    return _NUL.sub(r"\1", text) if "\\u0000" in text else text


def message(id_: str, draft: Draft, sealed: bytes) -> dict[str, Any]:
    """A new message. Raises `ValueError` for a body that no row may have."""
    body, flow = in_row(draft.body), draft.options.flow
    return {
        "id": id_, "kind": draft.kind, "protocol": draft.protocol, "url": draft.url, "method": draft.method,
        "body": _base64(body.content), "body_key": body.key, "body_size": body.size,
        "body_sha256": None if body.sha256 is None else _base64(body.sha256),
        "sealed": _base64(sealed), "retries_max": draft.retries_max, "timeout_ms": draft.timeout_ms,
        "on_unknown": draft.on_unknown, "caller_ip": draft.caller_ip, "label": draft.label,
        "labels": draft.labels, "queue": draft.queue,
        "flow_key": None if flow is None else flow.key, "topic": draft.topic, "endpoint": draft.endpoint,
        "schedule_id": draft.schedule_id, "parent_id": draft.parent_id, "delay_seconds": draft.delay_seconds,
    }  # fmt: skip


class BodyColumns(NamedTuple):
    """The columns of a body, in messages and schedules: its bytes, or the key of its pieces, and then `content` is
    empty.
    """

    content: bytes
    key: str | None
    size: int
    sha256: bytes | None


def in_row(body: Body | Unstored) -> BodyColumns:
    """The columns of a body. Every body in a row passes this check. Raises `ValueError` for one that is too large, or
    not stored yet.
    """
    match body:
        case Stored():
            return BodyColumns(b"", body.key, body.size, body.sha256)
        case bytes() if len(body) <= INLINE_BYTES_MAX:
            return BodyColumns(body, None, len(body), None)
        case _:
            raise ValueError("a large body must be stored in pieces before its message")


def step(n: int, message: Claimed, row: Logged) -> dict[str, Any]:
    """A row of the log, the n-th of its transaction."""
    return {
        "n": n, "id": message.id, "attempt": message.retried, "at": row.at, "state": row.state,
        "next_due_at": row.next_due_at, "status": row.status, "error": row.error, "header": row.header,
        "body": None if row.body is None else _base64(row.body),
    }  # fmt: skip


def verdict(ending: Ending) -> dict[str, Any]:
    """The effect of an attempt on its message."""
    again = isinstance(ending.verdict, Retry) and ending.verdict.counted
    return {
        "id": ending.message.id, "started_at": ending.message.started_at, "state": state_of(ending.verdict),
        "retried": ending.message.retried + again,
        "delay_seconds": ending.verdict.delay_seconds if isinstance(ending.verdict, Retry) else 0.0,
    }  # fmt: skip


def claims(held: Iterable[Claim]) -> str:
    """Claims as JSON."""
    return orjson.dumps([{"id": id_, "started_at": started_at} for id_, started_at in held]).decode()


def dead_letter(ending: Ending) -> dict[str, Any]:
    """A dead letter."""
    answer, spooled = ending.answer, ending.answer.spooled
    return {
        "id": ending.dlq_id, "message_id": ending.message.id, "status": answer.status, "header": header_lists(answer),
        "body": _base64(answer.body or (answer.error or "").encode()),
        "key": None if spooled is None else spooled.key, "size": None if spooled is None else spooled.size,
    }  # fmt: skip


def answer(ending: Ending) -> dict[str, Any]:
    """An answer that is kept in pieces."""
    message, spooled = ending.message, ending.answer.spooled
    assert spooled is not None
    return {
        "message_id": message.id, "attempt": message.retried, "key": spooled.key, "size": spooled.size,
        "header": header_lists(ending.answer),
    }  # fmt: skip


def flows(drafts: Sequence[Draft]) -> dict[str, Any] | None:
    """The columns of `set_flows`. None: no draft has a flow key. The newest draft of a key sets its limits, the
    earliest due one the time when something may be claimable.
    """
    newest: dict[str, FlowControl] = {}
    dues: dict[str, float] = {}
    for draft in drafts:
        if (flow := draft.options.flow) is not None:
            newest[flow.key] = flow
            dues[flow.key] = min(draft.delay_seconds, dues.get(flow.key, draft.delay_seconds))
    if not newest:
        return None
    return {
        "keys": list(newest),
        "parallelisms": [flow.parallelism for flow in newest.values()],
        "rates": [flow.rate for flow in newest.values()],
        "periods": [flow.period_seconds for flow in newest.values()],
        "cools": [flow.cooling for flow in newest.values()],
        "dues": [dues[key] for key in newest],
    }


def unspent(claims: Iterable[tuple[str, datetime]]) -> dict[str, Any]:
    """The columns of `unspend`: flow keys, and the claim times of messages for which no request was sent."""
    keys, started = zip(*claims, strict=True)
    return {"keys": list(keys), "started": list(started)}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
