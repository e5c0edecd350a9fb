"""Errors of the database, classified by the reaction they call for."""

from __future__ import annotations

import psycopg


def is_trouble(error: Exception) -> bool:
    """Whether the error is a passing fault of the connection or the server. Otherwise the database refuses the data."""
    passing = (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        psycopg.errors.ReadOnlySqlTransaction,  # an old primary after a failover
        OSError,
        TimeoutError,
    )
    return isinstance(error, passing)
