"""When a schedule fires: cron expressions with a time zone. Pure, but for the time zone database.

Source: the vendor's documentation of schedules: five fields, and `CRON_TZ=<IANA name> ` before them. Fields mean what they
do in Debian's cron: when neither day field begins with `*`, one of them matching is enough. A time that the clocks skip
fires once, just after the gap; one that they show twice fires once, the first time, unless minute or hour begins with `*`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from services.relay.wire.invalid import InvalidRequestError

CHARACTERS_MAX = 200
# How many firings may lie in an hour that the clocks show twice, before the first that is really later.
REPEATED_MAX = 3700
_ZONE = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.*)", re.DOTALL)
_ZONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}")
# A leap year's start: from here an expression that fires at all does within the search's bound of 50 years.
_ANY_MOMENT = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Cron:
    """`text` is as it was given, trimmed; `fields` are five or, with seconds first, six; `zone` is an IANA name."""

    text: str
    fields: str
    zone: str


def parse_cron(text: str) -> Cron:
    """`[CRON_TZ=<zone> ]` and five fields, or six with seconds first (ours). Raises `InvalidRequestError`."""
    text = text.strip()
    if len(text) > CHARACTERS_MAX:
        raise InvalidRequestError(f"invalid cron: longer than {CHARACTERS_MAX} characters")
    match = _ZONE.fullmatch(text)
    zone, fields = (match[1], match[2].strip()) if match else ("UTC", text)
    if _zone(zone) is None:
        raise InvalidRequestError(f"invalid cron: {zone!r} is no known time zone")
    count = len(fields.split())
    if count not in {5, 6}:
        raise InvalidRequestError(f"invalid cron: {count} fields instead of 5 (or 6, with seconds first)")
    try:
        next(CronSim(fields, _ANY_MOMENT))
    except CronSimError as error:
        raise InvalidRequestError(f"invalid cron: {str(error)[:1].lower()}{str(error)[1:]}") from None
    except StopIteration:
        raise InvalidRequestError("invalid cron: it never fires") from None
    return Cron(text, fields, zone)


def next_after(cron: Cron, moment: datetime) -> datetime:
    """The first firing after `moment`, which must be aware; in UTC. Raises `ValueError` when there is none to be found."""
    zone = _zone(cron.zone)
    if zone is None or moment.tzinfo is None:
        raise ValueError(f"no time zone {cron.zone}, or a moment without one")
    firings = CronSim(cron.fields, moment.astimezone(zone))
    for _ in range(REPEATED_MAX):
        firing = next(firings, None)
        if firing is None:
            break
        # In an hour shown twice the library may begin with a firing of its first showing, which is past.
        if (found := firing.astimezone(UTC)) > moment:
            return found
    raise ValueError(f"no firing of {cron.text!r} after {moment}")


def _zone(name: str) -> tzinfo | None:
    if name == "UTC":
        # The library takes a shorter way for this one.
        return UTC
    if not _ZONE_NAME.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None
