"""Drops months that are past their retention, once a day, if a retention is set."""

from __future__ import annotations

from collections.abc import Callable

from structlog.stdlib import BoundLogger

from tidings.database.postgres import connect
from tidings.database.retention import Dropped, Retention

# Counting the submissions of a month takes longer than a look at an index.
STATEMENT_SECONDS = 300.0


class OldMonths:
    def __init__(self, database_url: str, days: int, log: BoundLogger, *, stop: Callable[[], bool]) -> None:
        self._database_url = database_url
        self._days = days
        self._log = log
        self._stop = stop

    def run_once(self) -> int:
        """Drop the old months; return 0, because nothing more is due until the next day."""
        with connect(
            self._database_url, application="tidings-reconciler", statement_seconds=STATEMENT_SECONDS
        ) as connection:
            retention = Retention(connection, self._days)
            for outcome in retention.drop():
                if isinstance(outcome, Dropped):
                    self._log.info("month_dropped", month=outcome.month.name, submissions=outcome.month.submissions)
                else:
                    self._log.warning("month_kept", month=outcome.month.name, reason=outcome.why)
                if self._stop():
                    return 0
            self._log.info("idempotency_keys_pruned", count=retention.prune_keys(self._stop))
            self._log.info("content_removals_pruned", count=retention.prune_removals(self._stop))
        return 0
