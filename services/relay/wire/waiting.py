"""Why a message waits, and when its attempts to come would be. Pure."""

from __future__ import annotations

from datetime import datetime

from services.relay.wire.views import MessageView, Waiting


def why_waiting(message: MessageView, now: datetime) -> Waiting | None:
    """The first thing that holds a message back; None when it does not wait."""
    raise NotImplementedError


def timetable(message: MessageView, now: datetime) -> list[tuple[int, datetime]]:
    """The attempts to come if each fails at once: (number, earliest moment)."""
    raise NotImplementedError
