"""Filters of messages, dead letters and events, and the cursors of their lists. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Route(Enum):
    """Where filters stand: which keys are known and how much may be asked for."""

    EVENTS = "events"
    LOGS = "logs"
    LETTERS = "letters"
    LETTERS_BULK = "letters_bulk"
    MESSAGES_BULK = "messages_bulk"


@dataclass(frozen=True)
class Cursor:
    """The last item a page showed: its time in microseconds of Unix time, and its id."""

    time_us: int
    id: str


@dataclass(frozen=True)
class Filters:
    """Or within a field, and across the fields; an empty field filters nothing. Times are Unix ms, inclusive.

    `count` None: as many as there are (bulk routes only). `states` are as in `/v2/events` (`CANCELED`), without
    `IN_PROGRESS`, which is expanded. `all` is the bulk routes' consent to no filter.
    """

    message_ids: tuple[str, ...] = ()
    dlq_ids: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    url: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    topic: tuple[str, ...] = ()
    queue: tuple[str, ...] = ()
    schedule: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    flow_key: tuple[str, ...] = ()
    caller_ip: tuple[str, ...] = ()
    response_status: tuple[int, ...] = ()
    from_ms: int | None = None
    to_ms: int | None = None
    count: int | None = None
    cursor: Cursor | None = None
    all: bool = False

    @property
    def unfiltered(self) -> bool:
        """Whether nothing narrows the selection down (a count or a cursor does not)."""
        raise NotImplementedError


def read_filters(route: Route, query: str, body: bytes = b"") -> Filters:
    """The filters in a query and in a JSON body. Raises `InvalidRequestError`, naming what is unknown or wrong."""
    raise NotImplementedError


def encode_cursor(time_us: int, item_id: str) -> str:
    """An opaque text for the next page."""
    raise NotImplementedError


def decode_cursor(text: str) -> Cursor:
    """What `encode_cursor` was given. Raises `InvalidRequestError`."""
    raise NotImplementedError
