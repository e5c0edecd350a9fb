"""Filters as statement parameters. The statements are planned anew each time, so that unused filters cost nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from services.relay.protocol.filters import Filters
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.store.database import Database, Row, queries

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXTS = (
    "message_ids",
    "dlq_ids",
    "states",
    "url",
    "path",
    "topic",
    "queue",
    "schedule",
    "label",
    "flow_key",
    "caller_ip",
    "kinds",
)


def filtered(noun: str) -> Mapping[str, LiteralString]:
    """The statements of `<noun>.sql`, with `/* filtered */` replaced by its `filters`, and those extended by the common
    ones.
    """
    statements = queries(noun)
    filters = statements["filters"].replace("/* common */", queries("filtering")["common"])
    return {name: text.replace("/* filtered */", filters) for name, text in statements.items()}


def parameters(filters: Filters) -> dict[str, Any]:
    """Each field of `filters`. None: no filter on the field. `to_at` is exclusive."""
    return {name: list(getattr(filters, name)) or None for name in _TEXTS} | {
        "host": [host.lower() for host in filters.host] or None,
        "response_status": list(filters.response_status) or None,
        "from_at": None if filters.from_ms is None else _moment_of_ms(filters.from_ms),
        "to_at": None if filters.to_ms is None else _moment_of_ms(filters.to_ms + 1),
        "cursor_at": None if filters.cursor is None else _moment_of_us(filters.cursor.time_us),
    }


async def fetch_planned(database: Database, statement: LiteralString, values: Mapping[str, Any]) -> list[Row]:
    """As `Database.fetch`, but planned with its values and never prepared."""
    return await database.run(lambda connection: planned_rows(connection, statement, values))


async def planned_rows(
    connection: AsyncConnection[Any], statement: LiteralString, values: Mapping[str, Any]
) -> list[Row]:
    """As `rows`, but planned with its values and never prepared."""
    cursor = connection.cursor(row_factory=dict_row, binary=True)
    return await (await cursor.execute(statement, values, prepare=False)).fetchall()


def microseconds(moment: datetime) -> int:
    """Unix microseconds, exact."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment_of_ms(milliseconds: int) -> datetime:
    return _moment_of_us(milliseconds * 1000)


def _moment_of_us(time_us: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=time_us)
    except OverflowError:
        raise InvalidRequestError("a date is out of range") from None
