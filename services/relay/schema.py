"""Making the relay's schema: the numbered files under schema_files/, each once, in a database of any owner."""

from __future__ import annotations

from importlib import resources

import psycopg

_LOCK_ID = int.from_bytes(b"relay", "big")


def create_schema(database_url: str) -> int:
    """Apply what is missing and answer how many files that was. Two at once are safe: the second waits.

    Not yoyo, which the rest uses: the relay also runs alone, as a plain user who may own nothing but this schema.
    """
    folder = resources.files("services.relay").joinpath("schema_files")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_ID,))
        if connection.execute("SELECT FROM pg_namespace WHERE nspname = 'relay'").fetchone() is None:
            connection.execute("CREATE SCHEMA relay")
        connection.execute("CREATE TABLE IF NOT EXISTS relay.schema_files (name text PRIMARY KEY)")
        done = {row[0] for row in connection.execute("SELECT name FROM relay.schema_files")}
        missing = [file for file in files if file.name not in done]
        for file in missing:
            connection.execute(file.read_bytes())
            connection.execute("INSERT INTO relay.schema_files VALUES (%s)", (file.name,))
    return len(missing)
