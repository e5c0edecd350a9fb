"""Reading the request for a schedule, and making the message of one firing from what was stored of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.relay.message import Draft
from services.relay.wire.cron import Cron


@dataclass(frozen=True)
class ScheduleDraft:
    """A schedule as accepted: `destination` (a URL or the name of a group), `options` and `body` make its messages.

    `schedule_id` is the one to be created or replaced; `options` hold no relay token.
    """

    schedule_id: str
    cron: Cron
    destination: str
    queue: str | None
    options: dict[str, str]
    body: bytes
    caller_ip: str = ""
    protocol: int = 2
    paused: bool = False


def schedule_draft(
    destination: str, options: dict[str, str], body: bytes, *, protocol: int, caller_ip: str, new_id: str
) -> ScheduleDraft:
    """The schedule asked for; `new_id` is used when none is given. Raises `InvalidRequestError`."""
    raise NotImplementedError


def new_schedule_id() -> str:
    """`scd_` and an id in the order of time."""
    raise NotImplementedError


def firing(
    schedule_id: str,
    url: str,
    options: dict[str, str],
    body: bytes,
    *,
    now_seconds: float,
    protocol: int = 2,
    caller_ip: str = "",
    queue: str | None = None,
    topic: str | None = None,
    endpoint: str | None = None,
) -> Draft:
    """The message of one firing; its delay counts from the firing. `options` are those stored (with a group's merged)."""
    raise NotImplementedError
