"""Callbacks that arrive together are stored by one statement, and each gets its own answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime

import orjson
import psycopg
import pytest
from prometheus_client import CollectorRegistry, Histogram

from services.api.callback import read_callback
from services.api.committer import Committer
from services.api.database import open_pool
from services.api.problem import ProblemError
from services.api.recording import Recorder, Report
from services.api.row import Row
from services.api.store import Store
from tests.infra.postgres import PostgresServer
from tests.wait import until
from tidings.contract.ids import SubmissionId, new_submission_id
from tidings.contract.targets import Target
from tidings.database.queries import load_queries
from tidings.process import log

TARGET = Target(name="t", url="https://t.invalid", error_field=None, retries=3, timeout_seconds=1)


@pytest.fixture
def store(postgres: PostgresServer, database: str) -> Iterator[Store]:
    url = postgres.url(database, role="tidings_api")
    with ExitStack() as closing:
        pools = [open_pool(url, size_min=1, size_max=4) for _ in range(2)]
        for pool in pools:
            closing.callback(pool.close, 5)
        yield Store(pools[0], pools[1], load_queries("services.api"))


def submitted(store: Store, count: int) -> list[SubmissionId]:
    rows = [
        Row(
            id=new_submission_id(), tenant="a", target="t", body=b"{}", content_type="application/json", metadata=None,
            channel="news", webhook=None, idempotency_key=None, fingerprint=b"", traceparent=None,
            created_at=datetime.now(UTC),
        )
        for _ in range(count)
    ]  # fmt: skip
    store.insert(rows)
    return [row.id for row in rows]


def report(id_: SubmissionId, **fields: object) -> Report:
    content = {"status": 200, "body": "e30=", "sourceMessageId": "m", "maxRetries": 3} | fields
    return Report(id_, *read_callback(orjson.dumps(content)))


def test_each_report_of_a_batch_gets_its_own_answer(store: Store) -> None:
    recorder = Recorder(store, {"t": TARGET})
    done, retried, failed, twice = submitted(store, 4)
    unknown = new_submission_id()
    recorder.record([report(twice)])
    found = recorder.record(
        [
            report(done),
            report(retried, status=500, willRetry=True),
            report(unknown),
            report(failed, status=500, retried=3, willRetry=False),
            report(twice, status=500, willRetry=False),
        ]
    )
    assert [one for one in found if isinstance(one, str)] == ["succeeded", "attempt", "failed", "repeat"]
    assert isinstance(found[2], ProblemError)
    assert [shown(store, id_) for id_ in (done, retried, failed, twice)] == [
        ("succeeded", [1]), (None, [1]), ("failed", [4]), ("succeeded", [1]),
    ]  # fmt: skip


def test_two_reports_of_one_submission_in_a_batch_end_it_once(store: Store) -> None:
    [id_] = submitted(store, 1)
    found = Recorder(store, {"t": TARGET}).record([report(id_), report(id_)])
    assert found == ["succeeded", "repeat"]
    assert shown(store, id_) == ("succeeded", [1])


def test_a_batch_without_known_submissions_stores_nothing(store: Store) -> None:
    assert [type(one) for one in Recorder(store, {}).record([report(new_submission_id())])] == [ProblemError]


def test_callbacks_that_wait_together_share_a_statement(store: Store) -> None:
    ids = submitted(store, 20)
    recorder, opened, batches = Recorder(store, {"t": TARGET}), threading.Event(), list[int]()

    def record(reports: Sequence[Report]) -> list[str | Exception]:
        batches.append(len(reports))
        assert opened.wait(30)
        return recorder.record(reports)

    sizes = Histogram("size", "Callbacks", registry=CollectorRegistry())
    committer = Committer[Report, str](record, log.get("test"), sizes).start()
    with ThreadPoolExecutor(20) as threads:
        futures: list[Future[str]] = [threads.submit(committer.store, report(ids[0]))]
        until(lambda: batches == [1], 10)
        futures += [threads.submit(committer.store, report(id_)) for id_ in ids[1:]]
        until(lambda: committer.waiting() == 19, 10)
        opened.set()
        assert {future.result(30) for future in futures} == {"succeeded"}
    assert batches == [1, 19]
    committer.stop()


def test_a_batch_finds_its_submissions_by_key(store: Store, postgres: PostgresServer, database: str) -> None:
    """With statistics of many rows. Without them any plan is as good."""
    ids = submitted(store, 3_000)
    with psycopg.connect(postgres.url(database), autocommit=True) as admin:
        admin.execute("ANALYZE tidings.submissions")
        admin.execute("SELECT pg_stat_force_next_flush()")
        before = rows_read(admin)
        Recorder(store, {"t": TARGET}).record([report(id_) for id_ in ids[:10]])
        until(lambda: shown(store, ids[9])[0] == "succeeded", 10)
        until(lambda: rows_read(admin) != before, 20)
        assert rows_read(admin) - before < 1_000


def rows_read(admin: psycopg.Connection[tuple[object, ...]]) -> int:
    """By scans of whole partitions of submissions."""
    admin.execute("SELECT pg_stat_clear_snapshot()")
    row = admin.execute(
        "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables"
        " WHERE relname LIKE 'submissions%'"
    ).fetchone()
    assert row is not None
    return int(str(row[0]))


def shown(store: Store, id_: SubmissionId) -> tuple[str | None, list[int]]:
    found = store.get("a", id_)
    assert found is not None
    return found[0]["outcome"], [attempt["number"] for attempt in found[1]]
