"""Group commit, on an insert by hand: what is together, who gets which answer, and what has no room or no time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram

from services.api.committer import Committer
from services.api.problem import ProblemError
from services.api.row import Row, Stored
from tests.wait import until
from tidings import log
from tidings.ids import new_submission_id


def row(target: str = "t") -> Row:
    return Row(
        id=new_submission_id(), tenant="a", target=target, body=b"{}", content_type="application/json", metadata=None,
        channel=None, webhook=None, idempotency_key=None, fingerprint=b"f", traceparent=None, created_at=datetime.now(UTC),
    )  # fmt: skip


class Table:
    """Takes batches; holds the first until `open` is set. A row for the target `bad` fails the whole of its batch."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches: list[list[Row]] = []

    def insert(self, rows: Sequence[Row]) -> list[Stored]:
        self.batches.append(list(rows))
        assert self.open.wait(30)
        if any(row.target == "bad" for row in rows):
            raise ValueError("bad")
        return [Stored(row.id, repeated=False, same_input=True) for row in rows]


def committer(insert: Callable[[Sequence[Row]], Sequence[Stored]], **limits: Any) -> Committer:
    return Committer(insert, log.get("test"), Histogram("size", "Rows", registry=CollectorRegistry()), **limits)


def held(table: Table, rows: Sequence[Row], pool: ThreadPoolExecutor) -> tuple[Committer, list[Future[Stored]]]:
    """A committer that is busy with a first row while all of `rows` wait."""
    working = committer(table.insert).start()
    first = pool.submit(working.store, row())
    until(lambda: len(table.batches) == 1, 10)
    futures = [pool.submit(working.store, one) for one in rows]
    until(lambda: working.waiting() == len(rows), 10)
    table.open.set()
    assert first.result(10).repeated is False
    return working, futures


def test_what_waits_together_is_one_insert_and_each_gets_its_own_answer() -> None:
    table, rows = Table(), [row() for _ in range(8)]
    with ThreadPoolExecutor(16) as pool:
        working, futures = held(table, rows, pool)
        assert [future.result(10).id for future in futures] == [one.id for one in rows]
    assert [len(batch) for batch in table.batches] == [1, 8]
    working.stop()


def test_one_rows_fault_is_not_the_others() -> None:
    table, rows = Table(), [row(), row("bad"), row()]
    with ThreadPoolExecutor(16) as pool:
        working, futures = held(table, rows, pool)
        assert [future.result(10).id for future in (futures[0], futures[2])] == [rows[0].id, rows[2].id]
        with pytest.raises(ValueError, match="bad"):
            futures[1].result(10)
    working.stop()


def test_a_full_queue_is_503_at_once_and_stores_nothing() -> None:
    table = Table()
    full = committer(table.insert, queue_max=0)
    with pytest.raises(ProblemError) as refused:
        full.store(row())
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
    assert full.waiting() == 0


def test_a_database_that_does_not_answer_in_time_is_503() -> None:
    table = Table()
    working = committer(table.insert, answer_timeout_seconds=0.05).start()
    with pytest.raises(ProblemError) as late:
        working.store(row())
    assert (late.value.status, late.value.headers) == (503, {"Retry-After": "5"})
    table.open.set()
    working.stop()


def test_stopping_commits_what_is_queued() -> None:
    table, rows = Table(), [row() for _ in range(3)]
    with ThreadPoolExecutor(16) as pool:
        working, futures = held(table, rows, pool)
        working.stop()
        assert [future.result(10).id for future in futures] == [one.id for one in rows]
