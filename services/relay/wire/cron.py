"""When a schedule fires: cron expressions with a time zone. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Cron:
    """`text` is as it was given, trimmed; `fields` are five or, with seconds first, six; `zone` is an IANA name."""

    text: str
    fields: str
    zone: str


def parse_cron(text: str) -> Cron:
    """`[CRON_TZ=<zone> ]` and five fields, or six with seconds first (ours). Raises `InvalidRequestError`."""
    raise NotImplementedError


def next_after(cron: Cron, moment: datetime) -> datetime:
    """The first firing after `moment`, which must be aware; in UTC."""
    raise NotImplementedError
