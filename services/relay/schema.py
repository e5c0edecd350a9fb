"""Creates the relay's schema: applies each numbered file under schema_files/ once, in a database of any owner."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, LiteralString

import psycopg

from tidings.database.postgres import network_of
from tidings.database.queries import load_queries

Queries = Mapping[str, LiteralString]

_LOCK_ID = int.from_bytes(b"relay", "big")
# How long to wait for another starting process that applies the schema. Its indexes may be on large tables.
LOCK_SECONDS = 120
# A waiting request for a table's lock blocks the running relays. Relays hold such locks for milliseconds, a backup for
# hours.
TABLE_SECONDS = 10


class SchemaError(Exception):
    """The database's schema cannot be used by this version; the text says what to do."""


def create_schema(database_url: str, *, lock_seconds: float = LOCK_SECONDS) -> int:
    """Apply the missing files and return how many there were. Two concurrent calls are safe: the second waits.

    Raises `SchemaError` when a newer version made the schema, or when another process kept its lock for `lock_seconds`.

    yoyo, which the other services use, is not used here: the relay also runs alone, as a plain user that may own
    nothing but this schema.
    """
    folder = resources.files("services.relay").joinpath("schema_files")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    queries = load_queries("services.relay", "schema.sql")
    # No statement is prepared: behind a pooler the session may hold another client's statement of the same name.
    with psycopg.connect(database_url, prepare_threshold=None, **network_of(database_url)) as connection:
        _lock(connection, queries, lock_seconds)
        if connection.execute(queries["exists"]).fetchone() is None:
            connection.execute(queries["create"])
        connection.execute(queries["create_list"])
        done = {row[0] for row in connection.execute(queries["applied"])}
        if unknown := sorted(done - {file.name for file in files}):
            raise SchemaError(
                f"the database's schema is newer than this version: it does not know {', '.join(unknown)}."
                " Run the version that made it, or a later one"
            )
        missing = [file for file in files if file.name not in done]
        for file in missing:
            _apply(connection, queries, file)
    return len(missing)


def _apply(connection: psycopg.Connection[Any], queries: Queries, file: Traversable) -> None:
    connection.execute(queries["set_lock_timeout"], {"lock_timeout_ms": round(TABLE_SECONDS * 1000)})
    try:
        connection.execute(file.read_bytes())
    except psycopg.errors.LockNotAvailable:
        raise SchemaError(f"{file.name}: a table has been in use for {TABLE_SECONDS:g} s; start again later") from None
    connection.execute(queries["add"], {"name": file.name})


def _lock(connection: psycopg.Connection[Any], queries: Queries, seconds: float) -> None:
    """Take the lock for changes of the schema, until the end of the transaction."""
    connection.execute(queries["set_lock_timeout"], {"lock_timeout_ms": round(seconds * 1000)})
    try:
        connection.execute(queries["lock"], {"lock_id": _LOCK_ID})
    except psycopg.errors.LockNotAvailable:
        raise SchemaError(f"another process has been making the schema for {seconds:g} s; start again later") from None
