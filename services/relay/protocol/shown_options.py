"""The options of a message as answers show them. Pure."""

from __future__ import annotations

from typing import Any

from services.relay.options import CallbackOptions, FlowControl, Options, Redaction
from services.relay.protocol.redaction import shown_headers

Json = dict[str, Any]


def shown_options(options: Options, *, callback_headers: str = "Header") -> Json:
    """The same in messages, dead letters, schedules and events, but for the ending of the names of callbacks' headers.
    Values that are None are left out of the answer.
    """
    return {
        **_callback("callback", options.callback, callback_headers, options.redact),
        **_callback("failureCallback", options.failure_callback, callback_headers, options.redact),
        **_limits(options.flow),
        "retryDelayExpression": options.retry_delay,
    }


def _callback(name: str, callback: CallbackOptions | None, headers: str, redact: Redaction) -> Json:
    if callback is None:
        return {}
    return {name: callback.url, f"{name}{headers}": shown_headers(callback.headers, redact) or None}


def _limits(flow: FlowControl | None) -> Json:
    if flow is None:
        return {}
    return {
        "flowControlKey": flow.key,
        "parallelism": flow.parallelism,
        "rate": flow.rate,
        "period": flow.period_seconds,
    }
