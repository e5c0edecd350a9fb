"""The logging of every process: one JSON line per fact on stderr (or coloured text on a terminal), never a secret."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

LogFormat = Literal["json", "console", "auto"]

# The text of an error may contain a page of another server's response.
FAULT_CHARACTERS_MAX = 300

# Names of fields that may contain a secret. Their values are always replaced.
_SECRET_NAME = re.compile(r"authorization|token|secret|password|api_?key|signing_key|database_url", re.IGNORECASE)


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in event:
        if _SECRET_NAME.search(name):
            event[name] = "[redacted]"
    return event


def configure(process: str, *, level: str = "INFO", log_format: LogFormat = "auto") -> None:
    """Set up logging for `process` (its name is in every line). Log lines of libraries use the same format.

    `event` is a name from a short list ("dispatched", "relay_refused"); facts are keyword arguments.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _redact,
    ]
    # Not with `rich`, which shows each frame's variables, among them keys and bodies.
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = plain if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([] if console else [structlog.processors.format_exc_info]),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.getLogger("kafka").setLevel("WARNING")
    # A failing produce is repeated every few milliseconds, with a log line each; this code logs the outcome itself.
    logging.getLogger("kafka.producer.sender").setLevel("ERROR")


def get(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger; the caller passes it to its components."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger


def fault(error: BaseException) -> str:
    """Format an error for a log line or a response: its class and the beginning of its text."""
    return f"{type(error).__name__}: {error}"[:FAULT_CHARACTERS_MAX]
