"""The replication slot of the connector, as Postgres reports it. The watcher reads nothing else in the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from tidings.database.postgres import connect

# The query reads only the catalog; `/readyz` reports a fault within some seconds of its beginning.
STATEMENT_SECONDS = 5.0


class DatabaseUnavailableError(Exception):
    """Postgres does not respond; the request must be retried."""


@dataclass(frozen=True)
class SlotState:
    """`wal_status` is reserved, extended, unreserved or lost; None means that there is no slot.
    The slot retains `retained_bytes` of WAL.
    """

    active: bool
    wal_status: str | None
    retained_bytes: int
    published: bool

    @property
    def lost(self) -> bool:
        return self.wal_status == "lost"


class Slot:
    """A slot by name, with the publication it needs; `conninfo` connects as a role with REPLICATION."""

    def __init__(self, conninfo: str, queries: Mapping[str, LiteralString], *, slot: str, publication: str) -> None:
        self._conninfo = conninfo
        self._q = queries
        self._names = {"slot": slot, "publication": publication}
        self._connection: psycopg.Connection[dict[str, Any]] | None = None

    def state(self) -> SlotState:
        """Return the state. Raises `DatabaseUnavailableError`."""
        [row] = self._execute(self._q["slot"])
        return SlotState(bool(row["active"]), row["wal_status"], row["retained_bytes"] or 0, row["published"])

    def drop_lost(self) -> bool:
        """Drop the slot if it is lost; return true if it was dropped. Raises `DatabaseUnavailableError`."""
        return bool(self._execute(self._q["drop_lost_slot"]))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _execute(self, statement: LiteralString) -> list[dict[str, Any]]:
        try:
            if self._connection is None:
                self._connection = connect(
                    self._conninfo, application="tidings-watcher", statement_seconds=STATEMENT_SECONDS
                )
            return self._connection.execute(statement, self._names).fetchall()
        except psycopg.Error as error:
            self.close()
            raise DatabaseUnavailableError(type(error).__name__) from None
