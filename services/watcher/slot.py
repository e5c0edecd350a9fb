"""The replication slot that the connector reads, as Postgres sees it. Of the database nothing else is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from tidings.database.postgres import connect

# A look at the catalog; `/readyz` says what is wrong no later than some seconds after it began.
STATEMENT_SECONDS = 5.0


class DatabaseUnavailableError(Exception):
    """Postgres does not answer; to be tried again."""


@dataclass(frozen=True)
class SlotState:
    """`wal_status` is reserved, extended, unreserved or lost; None: there is no slot. `retained_bytes` of WAL wait."""

    active: bool
    wal_status: str | None
    retained_bytes: int
    published: bool

    @property
    def lost(self) -> bool:
        return self.wal_status == "lost"


class Slot:
    """A slot by name, with the publication it needs; `conninfo` is of a role with REPLICATION."""

    def __init__(self, conninfo: str, queries: Mapping[str, LiteralString], *, slot: str, publication: str) -> None:
        self._conninfo = conninfo
        self._q = queries
        self._names = {"slot": slot, "publication": publication}
        self._connection: psycopg.Connection[dict[str, Any]] | None = None

    def state(self) -> SlotState:
        """Raises `DatabaseUnavailableError`."""
        [row] = self._execute(self._q["slot"])
        return SlotState(bool(row["active"]), row["wal_status"], row["retained_bytes"] or 0, row["published"])

    def drop_lost(self) -> bool:
        """Drop the slot if it is lost; true when it was dropped. Raises `DatabaseUnavailableError`."""
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
