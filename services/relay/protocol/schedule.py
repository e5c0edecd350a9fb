"""Reads the request for a schedule, and creates the message of a firing from the stored schedule. Pure.

Source: the vendor's documentation of schedules: every option of publish except Not-Before, and a delay that counts from
each firing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import uuid_utils

from services.relay.message import Body, Draft
from services.relay.protocol import values
from services.relay.protocol.address import Destination, GroupName
from services.relay.protocol.cron import Cron, parse_cron
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.publishing import draft, lasting

# Options of the schedule itself. The others are options of its messages.
_OF_THE_SCHEDULE = frozenset({"upstash-cron", "upstash-schedule-id", "upstash-queue-name"})


@dataclass(frozen=True)
class ScheduleDraft:
    """A schedule as accepted. Its messages are made from `destination` (a URL or the name of a group), `options` and
    `body`.

    `schedule_id` is the one to create or replace. `options` contain no relay token.
    """

    schedule_id: str
    cron: Cron
    destination: str
    queue: str | None
    options: dict[str, str]
    body: Body
    caller_ip: str = ""
    protocol: int = 2
    paused: bool = False


def schedule_draft(
    destination: Destination,
    options: Mapping[str, str],
    body: Body,
    *,
    new_id: str,
    protocol: int = 2,
    caller_ip: str = "",
) -> ScheduleDraft:
    """The schedule that `options` (from `options_of`) describe. `new_id` is used when they give none.

    Raises `InvalidRequestError`, also for the options of its messages, so that no firing fails because of them.
    """
    text = options.get("upstash-cron", "")
    if not text.strip():
        raise InvalidRequestError("Upstash-Cron is missing")
    if options.get("upstash-not-before", "").strip():
        raise InvalidRequestError("Upstash-Not-Before is not possible on a schedule; use Upstash-Delay")
    stored = {name: value for name, value in lasting(options).items() if name not in _OF_THE_SCHEDULE}
    accepted = ScheduleDraft(
        schedule_id=values.name(options.get("upstash-schedule-id", "").strip() or new_id, "schedule id"),
        cron=parse_cron(text),
        destination=destination.text,
        queue=options.get("upstash-queue-name", "").strip() or None,
        options=stored,
        body=body,
        caller_ip=caller_ip,
        protocol=protocol,
    )
    url = "https://group.invalid" if isinstance(destination, GroupName) else destination.text
    firing(accepted.schedule_id, url, stored, body, queue=accepted.queue)
    return accepted


def new_schedule_id() -> str:
    """`scd_` and an id that sorts by time."""
    return f"scd_{uuid_utils.uuid7().hex}"


def firing(
    schedule_id: str,
    url: str,
    options: Mapping[str, str],
    body: Body,
    *,
    protocol: int = 2,
    caller_ip: str = "",
    queue: str | None = None,
    topic: str | None = None,
    endpoint: str | None = None,
) -> Draft:
    """The message of one firing. Its delay counts from the firing. `options` are the stored ones, merged with those of
    a group.
    """
    # The stored options never contain Not-Before, and that of a group is not a time of this firing.
    kept = {name: value for name, value in options.items() if name != "upstash-not-before"}
    return draft(
        url,
        kept,
        body,
        now_seconds=0.0,
        protocol=protocol,
        caller_ip=caller_ip,
        queue=queue,
        topic=topic,
        endpoint=endpoint,
        schedule_id=schedule_id,
    )
