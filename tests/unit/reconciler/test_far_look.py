"""A far look that fails does not keep the near ones from being made."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from services.reconciler.expiry import FAR, Expiry
from services.reconciler.metrics import ReconcilerMetrics
from tidings import log

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class SlowStore:
    """`Store` whose look far back takes longer than a statement may."""

    def __init__(self) -> None:
        self.looks: list[timedelta] = []

    def due(self, since: datetime, limit: int) -> list[UUID]:  # noqa: ARG002
        self.looks.append(NOW - since)
        if self.looks[-1] == FAR:
            raise psycopg.errors.QueryCanceled
        return []

    def expire(self, ids: Sequence[UUID]) -> list[UUID]:
        return list(ids)


def test_a_far_look_that_takes_too_long_is_not_repeated_at_once() -> None:
    store = SlowStore()
    expiry = Expiry(store, ReconcilerMetrics(CollectorRegistry()), log.get("test"), now=lambda: NOW)  # type: ignore[arg-type]
    with pytest.raises(psycopg.errors.QueryCanceled):
        expiry.run_once()
    assert expiry.run_once() == 0
    assert store.looks[0] == FAR
    assert store.looks[1] < FAR
