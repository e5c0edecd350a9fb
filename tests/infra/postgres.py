"""Postgres for tests: one server per run, and one database per test, cloned from a migrated template."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from pydantic import SecretStr

from stack.ports import free_ports
from stack.postgres import SETTINGS, Postgres
from tidings.database.migrate import MigrateSettings, migrate

TEMPLATE = "tidings_template"
ROLE_PASSWORD = "role-password"
# A setting on the command line overrides ALTER SYSTEM. The tests of lost slots must be able to change this one.
CHANGEABLE = "max_slot_wal_keep_size"
SERVER_SETTINGS = {name: value for name, value in SETTINGS.items() if name != CHANGEABLE}


@dataclass(frozen=True)
class PostgresServer:
    """A running server. `admin_url` is the administrator's URL of the database `postgres`. `restart` closes all
    connections.
    """

    admin_url: str
    restart: Callable[[], None]

    def url(self, database: str, *, role: str | None = None) -> str:
        parts = urlsplit(self.admin_url)
        user = f"{role}:{ROLE_PASSWORD}" if role else f"{parts.username}:{parts.password}"
        return urlunsplit((parts.scheme, f"{user}@{parts.hostname}:{parts.port}", f"/{database}", "", ""))

    def migrate(self, database: str) -> None:
        """Migrate `database` to our schema, with a login for each role."""
        password = SecretStr(ROLE_PASSWORD)
        migrate(
            MigrateSettings(
                database_url=SecretStr(self.url(database)),
                api_password=password,
                cdc_password=password,
                stream_password=password,
                relay_password=password,
                reconciler_password=password,
                api_key=None,
            )
        )

    def execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(statement)

    @contextmanager
    def database(self, *, template: str = TEMPLATE) -> Iterator[str]:
        """The name of a new database, dropped at the end, and migrated unless `template="template1"`."""
        name = f"t_{secrets.token_hex(6)}"
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield name
        finally:
            self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def native_postgres(directory: Path) -> Iterator[PostgresServer]:
    [port] = free_ports(1)
    server = Postgres(directory / "postgres", port, secrets.token_urlsafe(16), SERVER_SETTINGS)
    server.create()
    server.start()

    def restart() -> None:
        server.stop()
        server.start()

    try:
        yield PostgresServer(server.url(), restart)
    finally:
        server.stop()
