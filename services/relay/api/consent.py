"""The filters of lists and of bulk requests, and whether a bulk request without a filter selects everything. Pure.

`DELETE /v2/messages` with a forgotten filter cancels all messages; see docs/decisions/0008-bulk-actions.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal
from urllib.parse import parse_qsl, urlencode

from services.relay.protocol.filters import Filters, Route, read_filters
from services.relay.protocol.invalid import InvalidRequestError

IDS_MAX = 500
_MOMENT = re.compile(r"[0-9]{1,14}")
BulkWithoutFilter = Literal["on", "clients", "off"]

# The User-Agent prefixes of the vendor's clients, whose bulk requests have no other mark. The Python client's
# cancel_all and the JavaScript client's deleteAll (before its count) send requests without a filter.
_CLIENTS = ("python-httpx/", "node", "undici", "bun/", "deno/")
# These parameters do not narrow the selection.
_NO_FILTERS = frozenset({"count", "cursor", "all", "async", "qstash_token"})


def list_filters(route: Route, query: str) -> Filters:
    """The filters of a list. Raises `InvalidRequestError`.

    A numeric cursor, as in the clients' own example, is a time in Unix milliseconds: the list starts before it.
    """
    pairs = parse_qsl(query, keep_blank_values=True)
    moments = [int(value) for name, value in pairs if name.lower() == "cursor" and _MOMENT.fullmatch(value)]
    if not moments:
        return read_filters(route, query)
    others = [(name, value) for name, value in pairs if name.lower() != "cursor"]
    filters = read_filters(route, urlencode(others))
    return replace(filters, to_ms=min([*moments, *filter(None, [filters.to_ms])]))


def bulk_filters(
    route: Route, query: str, body: bytes | bytearray, headers: Mapping[str, str], rule: BulkWithoutFilter
) -> Filters | None:
    """The filters of a bulk request. None: an empty list of ids in the body selects nothing. Raises
    `InvalidRequestError`.
    """
    filters = read_filters(route, query, body)
    if len(filters.message_ids) + len(filters.dlq_ids) > IDS_MAX:
        raise InvalidRequestError(f"more than {IDS_MAX} ids")
    if filters.all or not filters.unfiltered:
        return filters
    parameters = {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)}
    if empty := parameters - _NO_FILTERS:
        raise InvalidRequestError(f"filter {min(empty)[:50]!r} is empty; to choose everything say all=true")
    if body.strip():
        # Filters in a body that select nothing are empty lists: no message is to be selected.
        return None
    # The JavaScript client sends a count for {all: true}.
    if filters.count is not None or rule == "on":
        return filters
    if rule == "clients" and headers.get("User-Agent", "").lower().startswith(_CLIENTS):
        return filters
    raise InvalidRequestError("a filter is needed; to choose everything say all=true")
