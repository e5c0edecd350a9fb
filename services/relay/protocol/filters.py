"""Filters of messages, dead letters and events, in a query or a JSON body. Pure.

Source: the vendor's documentation of logs, DLQ and bulk cancel; multiple values are repeated or separated by commas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl

import orjson

from services.relay.protocol.address import encoded, percent_encoded
from services.relay.protocol.cursor import Cursor, decode_cursor
from services.relay.protocol.headers import shown
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.storable import is_storable
from services.relay.protocol.values import whole

VALUES_MAX = 1000
_IN_PROGRESS = ("ACTIVE", "RETRY", "ERROR")
_STATES = frozenset({"CREATED", *_IN_PROGRESS, "DELIVERED", "FAILED", "CANCEL_REQUESTED", "CANCELED"})
# The field of `Filters` for each name in requests, case-insensitive.
_FIELDS = {
    "messageid": "message_ids", "messageids": "message_ids", "dlqid": "dlq_ids", "dlqids": "dlq_ids",
    "state": "states", "url": "url", "host": "host", "path": "path", "topicname": "topic", "urlgroup": "topic",
    "queuename": "queue", "scheduleid": "schedule", "label": "label", "flowcontrolkey": "flow_key",
    "callerip": "caller_ip", "responsestatus": "response_status", "fromdate": "from_ms", "todate": "to_ms",
    "count": "count", "cursor": "cursor", "all": "all", "order": "earliest_first", "trimbody": "trim_body",
    "async": "asynchronous", "kind": "kinds",
}  # fmt: skip
# The encoded form, which newer messages store. The filter also matches the text as written, which older messages store.
_ENCODED: Mapping[str, Callable[[str], str]] = {"url": encoded, "path": percent_encoded}
# In these values a comma is not a separator.
_WHOLE_VALUES = frozenset({"url", "path", "flow_key"})
_COMMON = frozenset(
    {"message_ids", "url", "host", "path", "topic", "queue", "schedule", "label", "flow_key", "caller_ip"}
    | {"from_ms", "to_ms", "count", "cursor"}
)


class Route(Enum):
    """Where filters appear: the fields known there, and the largest count."""

    EVENTS = ("events", 1000, _COMMON | {"states", "response_status", "earliest_first", "trim_body"})
    LOGS = ("logs", 100, _COMMON | {"states", "response_status", "earliest_first", "trim_body"})
    LETTERS = ("dlq", 100, _COMMON | {"dlq_ids", "response_status", "earliest_first", "trim_body"})
    LETTERS_BULK = ("bulk dlq", 500, _COMMON | {"dlq_ids", "response_status", "all", "asynchronous"})
    MESSAGES_BULK = ("bulk messages", 500, _COMMON | {"all", "asynchronous", "kinds"})

    def __init__(self, title: str, count_max: int, known: frozenset[str]) -> None:
        self.title = title
        self.count_max = count_max
        self.known = known

    @property
    def is_list(self) -> bool:
        """Whether the route returns pages. Their default count is the largest one."""
        return "all" not in self.known


@dataclass(frozen=True)
class Filters:
    """Values of one field are combined with OR, the fields with AND. An empty field filters nothing. Times are Unix ms,
    inclusive.

    `count` None: no limit (bulk routes only). `states` are spelled as in `/v2/events` (`CANCELED`), with `IN_PROGRESS`
    expanded. `kinds`, an extension of ours, are message, callback and failure_callback. `all` is the consent of a bulk
    request to the absence of filters. Newest first unless `earliest_first`.
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
    kinds: tuple[str, ...] = ()
    from_ms: int | None = None
    to_ms: int | None = None
    count: int | None = None
    cursor: Cursor | None = None
    all: bool = False
    earliest_first: bool = False
    trim_body: int | None = None

    @property
    def unfiltered(self) -> bool:
        """Whether no filter narrows the selection. A count or a cursor does not."""
        chosen = (
            self.message_ids, self.dlq_ids, self.states, self.url, self.host, self.path, self.topic, self.queue,
            self.schedule, self.label, self.flow_key, self.caller_ip, self.response_status,
        )  # fmt: skip
        return not any(chosen) and self.from_ms is None and self.to_ms is None


def read_filters(route: Route, query: str, body: bytes | bytearray = b"") -> Filters:
    """The filters in a query and in a JSON body. Raises `InvalidRequestError`, naming what is unknown or wrong."""
    given: dict[str, list[str]] = {}
    for name, value in [*_of_query(query), *_of_body(body)]:
        known = _FIELDS.get(name.lower())
        if known is None or known not in route.known:
            raise InvalidRequestError(f"unknown filter {shown(name)!r} for {route.title}")
        if not is_storable(value):
            raise InvalidRequestError(f"filter {shown(name)!r} is not UTF-8, or holds a NUL")
        items = [value] if known in _WHOLE_VALUES else [item.strip() for item in value.split(",")]
        if known in _ENCODED:
            items.append(_ENCODED[known](value))
        given.setdefault(known, []).extend(item for item in dict.fromkeys(items) if item)
    if sum(map(len, given.values())) > VALUES_MAX:
        raise InvalidRequestError(f"more than {VALUES_MAX} filter values")
    texts: Mapping[str, tuple[str, ...]] = {name: tuple(dict.fromkeys(items)) for name, items in given.items() if items}
    return Filters(
        **{name: texts[name] for name in _TEXTS if name in texts},
        states=_states(texts.get("states", ())),
        response_status=tuple(_number(item, "responseStatus", 999) for item in texts.get("response_status", ())),
        from_ms=_single(texts, "from_ms", "fromDate", 10**14),
        to_ms=_single(texts, "to_ms", "toDate", 10**14),
        count=_count(route, _single(texts, "count", "count", 10**9)),
        cursor=decode_cursor(texts["cursor"][0]) if "cursor" in texts else None,
        all=texts.get("all", ("",))[0].lower() == "true",
        earliest_first=_earliest_first(texts.get("earliest_first")),
        trim_body=_single(texts, "trim_body", "trimBody", 10**9),
    )


_TEXTS = (
    "message_ids", "dlq_ids", "url", "host", "path", "topic", "queue", "schedule", "label", "flow_key", "caller_ip",
    "kinds",
)  # fmt: skip


def _of_query(query: str) -> list[tuple[str, str]]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=VALUES_MAX)
    except ValueError:
        raise InvalidRequestError(f"more than {VALUES_MAX} query parameters") from None
    return [(name, value) for name, value in pairs if name.lower() != "qstash_token"]


def _of_body(body: bytes | bytearray) -> Iterable[tuple[str, str]]:
    if not body.strip():
        return []
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise InvalidRequestError("the body must be a JSON object of filters")
    return [
        (name, _text(name, item))
        for name, value in content.items()
        if value is not None
        for item in (value if isinstance(value, list) else [value])
    ]


def _text(name: str, item: Any) -> str:
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, (str, int)):
        return str(item)
    raise InvalidRequestError(f"filter {name[:50]!r} must be text, a number or a list of them")


def _states(items: Iterable[str]) -> tuple[str, ...]:
    found: list[str] = []
    for item in items:
        state = item.upper().replace("CANCELLED", "CANCELED")
        if state != "IN_PROGRESS" and state not in _STATES:
            raise InvalidRequestError(f"unknown state {item[:50]!r}")
        found.extend(_IN_PROGRESS if state == "IN_PROGRESS" else [state])
    return tuple(dict.fromkeys(found))


def _single(texts: Mapping[str, tuple[str, ...]], name: str, shown: str, greatest: int) -> int | None:
    if name not in texts:
        return None
    if len(texts[name]) > 1:
        raise InvalidRequestError(f"filter {shown!r} is given more than once")
    return _number(texts[name][0], shown, greatest)


def _number(item: str, shown: str, greatest: int) -> int:
    number = whole(item)
    if number is None or number > greatest:
        raise InvalidRequestError(f"filter {shown!r} must be a whole number from 0 to {greatest}")
    return number


def _count(route: Route, given: int | None) -> int | None:
    if given is None:
        return route.count_max if route.is_list else None
    if given == 0:
        raise InvalidRequestError("filter 'count' must be at least 1")
    # Fewer than requested is not an error: the client continues with the cursor.
    return min(given, route.count_max)


def _earliest_first(given: tuple[str, ...] | None) -> bool:
    order = (given or ("latestFirst",))[0]
    if order not in {"earliestFirst", "latestFirst"}:
        raise InvalidRequestError("filter 'order' must be earliestFirst or latestFirst")
    return order == "earliestFirst"
