"""Callbacks that arrive together are stored by one statement, and each gets its own answer."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, cast

import orjson
import psycopg
import pytest
from prometheus_client import CollectorRegistry, Histogram

from services.api.authentication import Authentication
from services.api.callback import read_callback
from services.api.committer import Committer
from services.api.database import open_pool
from services.api.problem import ProblemError
from services.api.recording import UNKNOWN, Recorder, Recording, Report
from services.api.relay_signature import RelaySignature
from services.api.row import Row
from services.api.store import Store
from tests.infra.postgres import PostgresServer
from tests.wait import until
from tidings.contract.ids import SubmissionId, new_submission_id
from tidings.contract.signature import Claims
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
    assert found == ["succeeded", "attempt", UNKNOWN, "failed", "repeat"]
    assert [shown(store, id_) for id_ in (done, retried, failed, twice)] == [
        ("succeeded", [1]), (None, [1]), ("failed", [4]), ("succeeded", [1]),
    ]  # fmt: skip


def test_two_reports_of_one_submission_in_a_batch_end_it_once(store: Store) -> None:
    [id_] = submitted(store, 1)
    found = Recorder(store, {"t": TARGET}).record([report(id_), report(id_)])
    assert found == ["succeeded", "repeat"]
    assert shown(store, id_) == ("succeeded", [1])


def test_a_batch_without_known_submissions_stores_nothing(store: Store) -> None:
    assert Recorder(store, {}).record([report(new_submission_id())]) == [UNKNOWN]


def test_callbacks_that_wait_together_share_a_statement(store: Store) -> None:
    ids = submitted(store, 20)
    recorder, opened, batches = Recorder(store, {"t": TARGET}), threading.Event(), list[int]()

    def record(reports: Sequence[Report]) -> list[str]:
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


@pytest.mark.parametrize(
    ("fields", "alone"),
    [
        ({}, False),
        ({"body": base64.b64encode(b"x" * 65_000).decode()}, True),
        ({"header": {"Content-Encoding": ["gzip"]}, "body": base64.b64encode(gzip.compress(b"{}")).decode()}, True),
    ],
)
def test_a_large_or_encoded_callback_keeps_no_other_waiting(store: Store, fields: dict[str, Any], alone: bool) -> None:
    """It is stored in a thread of its own, not by the thread that stores the callbacks of all."""
    [id_] = submitted(store, 1)
    recorder, registry, threads = Recorder(store, {"t": TARGET}), CollectorRegistry(), list[str]()

    def together(reports: Sequence[Report]) -> list[str]:
        threads.append("together")
        return recorder.record(reports)

    async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
        threads.append("alone")
        return await asyncio.to_thread(work, *arguments)

    committer = Committer[Report, str](together, log.get("test"), Histogram("size", "", registry=registry)).start()
    authentication = Authentication(lambda _: None, internal_token="internal", clock=time.monotonic)
    recording = Recording(cast("RelaySignature", None), authentication, recorder, committer, registry)
    body = orjson.dumps({"status": 200, "body": "e30=", "sourceMessageId": "m"} | fields)
    claims: Claims = {"body": base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()}
    reply = asyncio.run(recording.record_async(claims, str(id_), body, in_thread))
    committer.stop()
    assert (reply.status, shown(store, id_)) == (200, ("succeeded", [1]))
    assert set(threads) == {"alone" if alone else "together"}


def test_a_callback_of_an_unknown_submission_is_400_and_counted(store: Store) -> None:
    registry, recorder = CollectorRegistry(), Recorder(store, {})
    committer = Committer[Report, str](recorder.record, log.get("test"), Histogram("size", "", registry=registry))
    authentication = Authentication(lambda _: None, internal_token="internal", clock=time.monotonic)
    recording = Recording(cast("RelaySignature", None), authentication, recorder, committer, registry)
    body = orjson.dumps({"status": 200, "body": "e30=", "sourceMessageId": "m"})
    claims: Claims = {"body": base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()}
    for submission in (str(new_submission_id()), "x"):
        with pytest.raises(ProblemError, match="no such submission"):
            recording.record(claims, submission, body)
    assert registry.get_sample_value("tidings_callbacks_total", {"outcome": "unknown"}) == 2


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
