"""A message published again with some options replaced. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from services.relay.message import Draft, Unstored
from services.relay.options import CallbackOptions, Options
from services.relay.protocol.headers import folded
from services.relay.protocol.option_headers import REPLACED
from services.relay.protocol.publishing import draft

# The field of `Draft` that each option sets. Those of `Options` are in `REPLACED`.
_FIELDS = {
    "upstash-method": "method", "upstash-delay": "delay_seconds", "upstash-not-before": "delay_seconds",
    "upstash-retries": "retries_max", "upstash-timeout": "timeout_ms", "upstash-label": "labels",
    "upstash-deduplication-id": "deduplication_id", "upstash-content-based-deduplication": "deduplication_id",
    "tidings-on-unknown": "on_unknown",
}  # fmt: skip
_CALLBACKS = {"upstash-callback": "callback", "upstash-failure-callback": "failure_callback"}
_CALLBACK_FIELDS = {
    "": "url", "-method": "method", "-retries": "retries_max", "-retry-delay": "retry_delay", "-timeout": "timeout_ms",
    "-delay": "delay_seconds",
}  # fmt: skip


def overridden(original: Draft, overrides: Mapping[str, str], now_seconds: float) -> Draft:
    """`original` with the options in `overrides` (publish options; any case). Forwarded headers are added to its own.

    The request's own `Content-Type` is ignored, as clients send one with any request. `Upstash-Forward-Content-Type`
    changes that of the message. Raises `InvalidRequestError`.
    """
    options = {name: value for name, value in folded(overrides.items()).items() if name != "content-type"}
    read = dict(options)
    for name, field in _CALLBACKS.items():
        old: CallbackOptions | None = getattr(original.options, field)
        if old is not None:
            read.setdefault(name, old.url)
    assert not isinstance(original.body, Unstored), "what was accepted before has its body"
    asked = draft(original.url, read, original.body, now_seconds=now_seconds, topic=original.topic)
    changed: dict[str, Any] = {field: getattr(asked, field) for name, field in _FIELDS.items() if name in options}
    return replace(
        original,
        headers=original.headers | asked.headers,
        options=_options(original.options, asked.options, options),
        **changed,
    )


def _options(original: Options, asked: Options, given: Mapping[str, str]) -> Options:
    changed: dict[str, Any] = {field: getattr(asked, field) for name, field in REPLACED.items() if name in given}
    for name, field in _CALLBACKS.items():
        changed[field] = _callback(getattr(original, field), getattr(asked, field), given, name)
    # Hidden parts stay hidden. Otherwise any publisher could reveal them.
    return replace(original, redact=original.redact | asked.redact, **changed)


def _callback(
    old: CallbackOptions | None, asked: CallbackOptions | None, options: Mapping[str, str], name: str
) -> CallbackOptions | None:
    if old is None or asked is None:
        return asked
    changed = {field: getattr(asked, field) for part, field in _CALLBACK_FIELDS.items() if f"{name}{part}" in options}
    return replace(old, headers=old.headers | asked.headers, **changed)
