"""The options of a message that no SQL statement reads: what its draft, its claim and its views share, and what is
sealed with its headers. An option that SQL reads is a column, and a field of `Draft`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class CallbackOptions:
    """`Upstash-Callback` or `-Failure-Callback` with its own options; `headers` go onto the callback."""

    url: str
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    retries_max: int | None = None
    retry_delay: str | None = None
    timeout_ms: int | None = None
    delay_seconds: float = 0.0


@dataclass(frozen=True)
class StartedCallback:
    """`Tidings-Started-Callback`: the address that is notified of the start of each attempt, and the `data` sent with
    it.
    """

    url: str
    data: str = ""


@dataclass(frozen=True)
class FlowControl:
    """The limits of a flow-control key: concurrent calls, and calls started in a period. None: no such limit.

    `cooling`: an answer that asks for a wait pauses the whole key.
    """

    key: str
    parallelism: int | None
    rate: int | None
    period_seconds: int = 1
    cooling: bool = True


@dataclass(frozen=True)
class Redaction:
    """The parts of a message that answers show only as a hash. They are delivered unchanged. `headers` are lower-case
    names.
    """

    body: bool = False
    all_headers: bool = False
    headers: frozenset[str] = frozenset()

    def __or__(self, other: Redaction) -> Redaction:
        """Hide what either of the two hides."""
        return Redaction(self.body or other.body, self.all_headers or other.all_headers, self.headers | other.headers)


NOTHING_REDACTED = Redaction()


@dataclass(frozen=True)
class Options:
    """`public_only`: only public addresses are called, whatever the operator allows.

    A new field needs a default, which old messages have. A process of an older version leaves messages with a field
    that it does not know to others, so defaults are not stored.
    """

    callback: CallbackOptions | None = None
    failure_callback: CallbackOptions | None = None
    started_callback: StartedCallback | None = None
    retry_delay: str | None = None
    flow: FlowControl | None = None
    redact: Redaction = NOTHING_REDACTED
    final_status: tuple[int, ...] = ()
    final_errors: tuple[str, ...] = ()
    error_field: str | None = None
    public_only: bool = False


NO_OPTIONS = Options()
OPTION_NAMES = frozenset(option.name for option in fields(Options))
_DEFAULTS = vars(NO_OPTIONS)


def stored_options(options: Options) -> dict[str, Any]:
    """The options that differ from their defaults, to be stored as JSON."""
    if options is NO_OPTIONS:
        return {}
    defaults = _DEFAULTS
    # Most values are the default object itself, which is faster to find out than equality.
    return {
        name: value
        for name, value in vars(options).items()
        if value is not (default := defaults[name]) and value != default
    }


def restored_options(content: dict[str, Any]) -> Options:
    """The options of stored JSON, whose values become those of `Options` in place. All names are of OPTION_NAMES."""
    if not content:
        return NO_OPTIONS
    for name, restore in _RESTORE:
        if (value := content.get(name)) is not None:
            content[name] = restore(value)
    # Without `__init__`, which sets the fields one by one for each message that is claimed. Fields that are not in
    # `content` are read from the class, which has their defaults.
    options = object.__new__(Options)
    options.__dict__.update(content)
    return options


# The conversions of values whose types JSON does not have.
_RESTORE: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("callback", lambda content: CallbackOptions(**content)),
    ("failure_callback", lambda content: CallbackOptions(**content)),
    ("started_callback", lambda content: StartedCallback(**content)),
    ("flow", lambda content: FlowControl(**content)),
    ("redact", lambda content: Redaction(**content | {"headers": frozenset(content["headers"])})),
    ("final_status", tuple),
    ("final_errors", tuple),
)
