"""Applies migrations/ to a database and sets the logins of the roles. Run by hand or as a one-shot container."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import yoyo
from psycopg import sql
from pydantic import Field, SecretStr

from tidings.contract.keys import hash_api_key
from tidings.database.partitions import Partitions
from tidings.database.queries import load_queries
from tidings.process.settings import Settings

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"

# An arbitrary constant that nothing else locks: "tidings" in ASCII, cut to 63 bits.
_LOCK_ID = int.from_bytes(b"tidings", "big")


class MigrateSettings(Settings):
    """The database as an administrator, and the password of each login. A login without a password stays disabled."""

    database_url: SecretStr = Field(validation_alias="TIDINGS_ADMIN_DATABASE_URL")
    api_password: SecretStr | None = Field(None, validation_alias="TIDINGS_API_PASSWORD")
    cdc_password: SecretStr | None = Field(None, validation_alias="TIDINGS_CDC_PASSWORD")
    stream_password: SecretStr | None = Field(None, validation_alias="TIDINGS_STREAM_PASSWORD")
    relay_password: SecretStr | None = Field(None, validation_alias="TIDINGS_RELAY_PASSWORD")
    reconciler_password: SecretStr | None = Field(None, validation_alias="TIDINGS_RECONCILER_PASSWORD")
    # A first API key, for the tenant `default`, so that a new installation can be used at once.
    api_key: SecretStr | None = Field(None, validation_alias="TIDINGS_API_KEY")


def migrate(settings: MigrateSettings) -> int:
    """Apply the missing migrations; return their number.

    Concurrent runs are safe: an advisory lock of the session makes the second wait, and it then finds nothing to do. A
    process that dies releases the lock, unlike yoyo's own lock table.
    """
    url = settings.database_url.get_secret_value()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_queries()["lock"], {"lock_id": _LOCK_ID})
        applied = _apply(url)
        _set_logins(connection, settings)
        Partitions(lambda statement, parameters: connection.execute(statement, parameters).fetchall()).make()
        if settings.api_key is not None:
            add_api_key(connection, settings.api_key.get_secret_value(), tenant="default", name="first key")
    return applied


def _apply(url: str) -> int:
    backend = yoyo.get_backend(url.replace("postgresql://", "postgresql+psycopg://", 1))
    try:
        backend.break_lock()  # safe: the advisory lock excludes other runs, so this is left from a crash
        pending = backend.to_apply(yoyo.read_migrations(str(MIGRATIONS)))
        with backend.lock():
            backend.apply_migrations(pending)
        return len(pending)
    finally:
        backend.connection.close()


def _set_logins(connection: psycopg.Connection[Any], settings: MigrateSettings) -> None:
    for role, password in (
        ("tidings_api", settings.api_password),
        ("tidings_cdc", settings.cdc_password),
        ("tidings_stream", settings.stream_password),
        ("tidings_relay", settings.relay_password),
        ("tidings_reconciler", settings.reconciler_password),
    ):
        if password is None:
            continue
        # Hashed here: the statement, and so the log and the WAL, contains only the SCRAM verifier.
        verifier = connection.pgconn.encrypt_password(
            password.get_secret_value().encode(), role.encode(), b"scram-sha-256"
        ).decode()
        statement = sql.SQL(_queries()["set_login"])
        connection.execute(statement.format(role=sql.Identifier(role), verifier=sql.Literal(verifier)))


def add_api_key(connection: psycopg.Connection[Any], key: str, *, tenant: str, name: str) -> None:
    """Let `key` act for `tenant`. An existing key is unchanged."""
    parameters = {"key_sha256": hash_api_key(key), "tenant": tenant, "name": name}
    connection.execute(_queries()["add_key"], parameters)


def api_keys(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """Return hash prefix, tenant, name, creation time and revocation time; oldest first."""
    return connection.execute(_queries()["keys"]).fetchall()


def revoke_api_key(connection: psycopg.Connection[Any], hash_prefix: str) -> int:
    """Revoke the one key whose hash begins with `hash_prefix`; return 0 if none or several do."""
    return connection.execute(_queries()["revoke_key"], {"hash_prefix": hash_prefix}).rowcount


def _queries() -> Mapping[str, LiteralString]:
    return load_queries("tidings.database", "migrate.sql")
