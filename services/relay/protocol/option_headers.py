"""The headers of the options that no SQL statement reads: their names, and the reading of their values. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from services.relay.options import CallbackOptions, FlowControl, Options, StartedCallback
from services.relay.protocol import values
from services.relay.protocol.address import absolute
from services.relay.protocol.flow import parse_flow_control
from services.relay.protocol.headers import canonical, forwarded, is_deliverable
from services.relay.protocol.invalid import InvalidRequestError

# The field of `Options` that each header sets anew when a dead letter is retried. The fields of the callbacks and of
# redaction are combined with those of the dead letter instead: see `overriding`.
REPLACED = {
    "upstash-retry-delay": "retry_delay", "upstash-flow-control-key": "flow",
    "tidings-final-status": "final_status", "tidings-final-error": "final_errors", "tidings-error-field": "error_field",
    "tidings-started-callback": "started_callback", "tidings-addresses": "public_only",
}  # fmt: skip
# Names after `Upstash-Callback-`. A header with one of these names or prefixes is an option of the callback, with the
# meaning that the name without `-Callback` has for a publish. The vendor's workflows are included, though the relay has
# none.
_CALLBACK_OPTIONS = frozenset(
    {
        "method", "retries", "retry-delay", "timeout", "delay", "not-before", "label", "deduplication-id",
        "content-based-deduplication", "flow-control-key", "flow-control-value", "redact-fields", "header-forward", "cron",
    }
)  # fmt: skip
_CALLBACK_PREFIXES = ("forward-", "workflow-")


def read_options(given: Mapping[str, str], raw: Mapping[str, str]) -> Options:
    """The options of a request's headers, by lower-case name. `raw` has their values as received, and `given` as text.
    Raises `InvalidRequestError`.
    """
    return Options(
        callback=_callback(given, raw, "upstash-callback"),
        failure_callback=_callback(given, raw, "upstash-failure-callback"),
        started_callback=_started_callback(given, raw),
        retry_delay=values.expression(given.get("upstash-retry-delay"), "Upstash-Retry-Delay"),
        flow=_flow(given),
        redact=values.redaction(given.get("upstash-redact-fields")),
        final_status=values.statuses(given.get("tidings-final-status")),
        final_errors=values.listed(given.get("tidings-final-error")),
        error_field=given.get("tidings-error-field") or None,
        public_only=values.public_only(given.get("tidings-addresses")),
    )


def _callback(given: Mapping[str, str], raw: Mapping[str, str], name: str) -> CallbackOptions | None:
    address = raw.get(name)
    if not address:
        return None
    shown = canonical(name)
    retries = given.get(f"{name}-retries")
    return CallbackOptions(
        url=absolute(address, shown),
        method=values.method(given.get(f"{name}-method")),
        headers=_of_callback(raw, name),
        retries_max=None if retries is None else values.count(retries, f"{shown}-Retries", 3),
        retry_delay=values.expression(given.get(f"{name}-retry-delay"), f"{shown}-Retry-Delay"),
        timeout_ms=values.timeout_ms(given.get(f"{name}-timeout"), f"{shown}-Timeout"),
        delay_seconds=values.duration(given.get(f"{name}-delay"), f"{shown}-Delay"),
    )


def _of_callback(given: Mapping[str, str], name: str) -> dict[str, str]:
    """The headers of a callback: those with `-Forward-`, and those with a name that is not an option.

    The vendor's documentation has only the first kind. Its Python client creates the second from `callback_headers`,
    which it promises to forward with the callback.
    """
    prefix = f"{name}-"
    named = {option.removeprefix(prefix): value for option, value in given.items() if option.startswith(prefix)}
    bare = {
        option: value
        for option, value in named.items()
        if option not in _CALLBACK_OPTIONS
        and not option.startswith(_CALLBACK_PREFIXES)
        and is_deliverable(option, value)
    }
    return forwarded(bare, "") | forwarded(given, f"{prefix}forward-")


def _started_callback(given: Mapping[str, str], raw: Mapping[str, str]) -> StartedCallback | None:
    address = raw.get("tidings-started-callback")
    if not address:
        return None
    return StartedCallback(
        absolute(address, "Tidings-Started-Callback"), values.started_data(given.get("tidings-started-data"))
    )


def _flow(given: Mapping[str, str]) -> FlowControl | None:
    key, value = given.get("upstash-flow-control-key"), given.get("upstash-flow-control-value")
    if key is None and value is None:
        return None
    cooling = given.get("tidings-cooling", "on").strip().lower()
    if cooling not in {"on", "off"}:
        raise InvalidRequestError("Tidings-Cooling must be on or off")
    return parse_flow_control(key or "", value or "", cooling=cooling == "on")
