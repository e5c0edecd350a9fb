"""A far check that fails does not prevent the near checks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from services.reconciler.expiry import BACK, FAR, Expiry
from services.reconciler.metrics import ReconcilerMetrics
from services.reconciler.store import Due
from tidings.process import log
from tidings.process.telemetry import Telemetry

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class SlowStore:
    """A `Store` whose far check exceeds the timeout of a statement."""

    def __init__(self) -> None:
        self.looks: list[timedelta] = []

    def low_water(self, name: str) -> UUID:
        assert name
        return UUID(int=int(NOW.timestamp() * 1000) << 80)

    def due(self, after: tuple[datetime, UUID], upto: datetime | None, limit: int) -> list[Due]:
        assert limit > 0
        if upto is not None:
            self.looks.append(NOW - after[0])
            if self.looks[-1] == FAR:
                raise psycopg.errors.QueryCanceled
        return []


def test_a_far_check_that_takes_too_long_is_not_repeated_at_once() -> None:
    store = SlowStore()
    expiry = Expiry(store, Telemetry(ReconcilerMetrics(CollectorRegistry()), log.get("test")), now=lambda: NOW)  # type: ignore[arg-type]
    with pytest.raises(psycopg.errors.QueryCanceled):
        expiry.run_once()
    assert expiry.run_once() == 0
    assert expiry.run_once() == 0
    assert store.looks == [FAR, BACK]
