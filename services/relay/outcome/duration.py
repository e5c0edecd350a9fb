"""Durations as the protocol writes them (`5s`, `1d10h30m`) and as providers do (Go's `6m5s`, `1.5s`, `20ms`)."""

from __future__ import annotations

import re

_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h|d)")
_WHOLE = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|ms|s|m|h|d))+")


def parse_duration(text: str) -> float | None:
    """Seconds, or None when `text` is not a duration. A number alone is not one, as it has no unit."""
    text = text.strip()
    if not _WHOLE.fullmatch(text):
        return None
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _PART.findall(text))
