"""Faults of the database, by the reaction they call for."""

from __future__ import annotations

import psycopg


def is_trouble(error: Exception) -> bool:
    """Whether it is the connection's or the server's trouble, which passes; otherwise what was asked is refused."""
    passing = (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        psycopg.errors.ReadOnlySqlTransaction,  # an old primary after a failover
        OSError,
        TimeoutError,
    )
    return isinstance(error, passing)
