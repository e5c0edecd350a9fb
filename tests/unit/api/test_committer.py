"""Group commit with a fake insert: which rows share a transaction, which answer each gets, and the limits of room and
time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram
from psycopg import OperationalError

from services.api.committer import STUCK_SECONDS, CommitLimits, Committer
from services.api.problem import ProblemError
from services.api.row import Row, Stored
from tests.wait import until
from tidings.contract.ids import new_submission_id
from tidings.process import log


def row(target: str = "t") -> Row:
    return Row(
        id=new_submission_id(), tenant="a", target=target, body=b"{}", content_type="application/json", metadata=None,
        channel=None, webhook=None, idempotency_key=None, fingerprint=b"f", traceparent=None, created_at=datetime.now(UTC),
    )  # fmt: skip


class Table:
    """Inserts batches; blocks the first until `open` is set. A row for the target `bad` fails its whole batch."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches: list[list[Row]] = []

    def insert(self, rows: Sequence[Row]) -> list[Stored]:
        self.batches.append(list(rows))
        assert self.open.wait(30)
        if any(row.target == "bad" for row in rows):
            raise ValueError("bad")
        return [Stored(row.id, repeated=False, same_input=True) for row in rows]


class Away(Table):
    """Inserts one batch; then the database is down."""

    def insert(self, rows: Sequence[Row]) -> list[Stored]:
        stored = super().insert(rows)
        if len(self.batches) > 1:
            raise OperationalError("away")
        return stored


def committer(insert: Callable[[Sequence[Row]], Sequence[Stored]], **limits: Any) -> Committer[Row, Stored]:
    size = Histogram("size", "Rows", registry=CollectorRegistry())
    return Committer(insert, log.get("test"), size, limits=CommitLimits(**limits))


def held(
    table: Table, rows: Sequence[Row], pool: ThreadPoolExecutor
) -> tuple[Committer[Row, Stored], list[Future[Stored]]]:
    """A committer that is busy with a first row while all of `rows` wait."""
    working = committer(table.insert).start()
    first = pool.submit(working.store, row())
    until(lambda: len(table.batches) == 1, 10)
    futures = [pool.submit(working.store, one) for one in rows]
    until(lambda: working.waiting() == len(rows), 10)
    table.open.set()
    assert first.result(10).repeated is False
    return working, futures


def test_rows_that_wait_together_are_one_insert_with_an_answer_for_each() -> None:
    table, rows = Table(), [row() for _ in range(8)]
    with ThreadPoolExecutor(16) as pool:
        working, futures = held(table, rows, pool)
        assert [future.result(10).id for future in futures] == [one.id for one in rows]
    assert [len(batch) for batch in table.batches] == [1, 8]
    working.stop()


def test_one_rows_error_does_not_affect_the_others() -> None:
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


def test_tasks_of_an_event_loop_and_threads_can_wait_at_the_same_time() -> None:
    table, rows = Table(), [row() for _ in range(4)]
    table.open.set()
    working = committer(table.insert).start()

    async def scene() -> list[Stored]:
        alone = asyncio.to_thread(working.store, rows[0])
        return list(await asyncio.gather(alone, *(working.store_async(one) for one in rows[1:])))

    assert [stored.id for stored in asyncio.run(scene())] == [one.id for one in rows]
    working.stop()


def test_a_task_gets_its_rows_error_and_its_timeout() -> None:
    table = Table()
    working = committer(table.insert, answer_timeout_seconds=0.2).start()
    with pytest.raises(ProblemError) as late:
        asyncio.run(working.store_async(row()))
    assert late.value.status == 503
    table.open.set()
    until(lambda: working.waiting() == 0)
    with pytest.raises(ValueError, match="bad"):
        asyncio.run(working.store_async(row("bad")))
    working.stop()


def test_a_row_whose_client_got_503_is_not_stored_later() -> None:
    table = Table()
    working = committer(table.insert, answer_timeout_seconds=0.2).start()
    first, second = row(), row()
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(working.store, first)]
        until(lambda: len(table.batches) == 1)
        futures.append(pool.submit(working.store, second))
        for future in futures:
            with pytest.raises(ProblemError):
                future.result(30)
    table.open.set()
    working.stop()
    assert table.batches == [[first]]


def test_a_database_that_is_down_is_not_retried_for_each_row() -> None:
    table, rows = Away(), [row() for _ in range(3)]
    with ThreadPoolExecutor(8) as pool:
        working, futures = held(table, rows, pool)
        for future in futures:
            with pytest.raises(OperationalError):
                future.result(30)
    assert [len(batch) for batch in table.batches] == [1, 3]
    working.stop()


def test_a_commit_that_does_not_end_is_an_error() -> None:
    table = Table()
    working = committer(table.insert).start()
    assert working.fault() is None
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(working.store, row())
        until(lambda: working.fault() is not None, STUCK_SECONDS + 30)
        table.open.set()
        future.result(30)
    until(lambda: working.fault() is None)
    working.stop()
    assert working.fault() is not None
