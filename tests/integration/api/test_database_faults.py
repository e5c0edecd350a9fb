"""The api with a Postgres that stops responding, loses answers or is slow."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from psycopg import OperationalError

from services.api.database import open_pool
from tests.infra.postgres import PostgresServer
from tests.infra.tcp_proxy import TcpProxy, tcp_proxy
from tests.integration.api.test_server import served
from tests.process import Process, started
from tests.wait import until
from tidings.database.migrate import add_api_key

INSERT = b"INSERT INTO tidings.submissions"


@dataclass(frozen=True)
class Proxied:
    process: Process
    proxy: TcpProxy
    admin_url: str

    def call(self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any) -> requests.Response:
        url = f"http://{self.process.environment['API_LISTEN']}{path}"
        return requests.request(
            method, url, headers={"Authorization": "Bearer key"} | (headers or {}), timeout=120, **options
        )

    def submit(self, **headers: str) -> requests.Response:
        content = {"target": "demo-images", "input": {"prompt": "x"}}
        return self.call("POST", "/v1/submissions", {n.replace("_", "-"): v for n, v in headers.items()}, json=content)

    def faults(self) -> set[str]:
        return set(self.call("GET", "/readyz").json().get("faults", ()))

    def stored(self) -> int:
        with psycopg.connect(self.admin_url) as connection:
            row = connection.execute("SELECT count(*) FROM tidings.submissions").fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def api(postgres: PostgresServer, database: str, tmp_path: Path) -> Iterator[Proxied]:
    admin_url = postgres.url(database)
    with psycopg.connect(admin_url) as connection:
        add_api_key(connection, "key", tenant="t", name="k")
    with tcp_proxy(admin_url) as proxy:
        process = served(postgres, database, tmp_path)
        process.environment["API_DATABASE_URL"] = proxy.url(postgres.url(database, role="tidings_api"))
        with started(process):
            yield Proxied(process, proxy, admin_url)


def test_a_postgres_that_stopped_responding_is_connected_to_anew_and_the_rows_are_stored(api: Proxied) -> None:
    assert api.submit().status_code == 202
    api.proxy.swallow()
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(api.submit) for _ in range(3)]
        until(lambda: "committer" in api.faults(), 60)
        # Postgres responds again. Only the old connections never respond, as they were not reset.
        api.proxy.swallowing = False
        assert [future.result(120).status_code for future in waiting] == [202] * 3
    until(lambda: api.faults() == set(), 60)
    assert api.submit().status_code == 202
    assert api.stored() == 5


def test_a_read_without_an_answer_is_503(api: Proxied) -> None:
    location = api.submit().headers["Location"]
    api.proxy.swallow()
    assert api.call("GET", location).status_code == 503
    assert "postgres" in api.faults()


@pytest.mark.parametrize(
    ("statement", "headers"),
    [(INSERT, {}), (INSERT, {"Idempotency_Key": "a"}), (b"COMMIT", {"Idempotency_Key": "a"})],
    ids=["insert", "insert with a key", "commit with a key"],
)
def test_a_submission_whose_commit_lost_its_answer_is_stored_once(
    api: Proxied, statement: bytes, headers: dict[str, str]
) -> None:
    assert api.call("GET", "/v1/submissions").status_code == 200
    api.proxy.lose_answers(statement, times=1)
    answer = api.submit(**headers)
    assert (answer.status_code, api.proxy.lost, api.stored()) == (202, 1, 1)
    assert api.call("GET", answer.headers["Location"]).status_code == 200
    if headers:
        again = api.submit(**headers)
        assert (again.status_code, again.json()["id"]) == (200, answer.json()["id"])


def test_a_group_of_rows_whose_commit_lost_its_answer_is_stored_once(api: Proxied) -> None:
    api.proxy.lose_answers(INSERT, times=2)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: api.submit(), range(20)))
    assert [answer.status_code for answer in answers] == [202] * 20
    assert api.stored() == len({answer.json()["id"] for answer in answers}) == 20


def test_a_batch_whose_commit_lost_its_answer_is_stored_once(api: Proxied) -> None:
    api.proxy.lose_answers(INSERT, times=1)
    items = [{"target": "demo-images", "input": n} for n in range(3)]
    answer = api.call("POST", "/v1/submissions/batch", json={"submissions": items})
    assert (answer.status_code, api.proxy.lost, api.stored()) == (202, 1, 3)


def test_sigterm_ends_the_api_while_its_postgres_does_not_respond(api: Proxied) -> None:
    api.proxy.swallow()
    with ThreadPoolExecutor() as pool:
        pool.submit(api.submit)
        until(api.faults, 60)
        api.process.kill(15)  # waits for up to 60 s
        assert not api.process.running()


def test_an_answer_that_does_not_arrive_costs_one_connection(postgres: PostgresServer, database: str) -> None:
    with open_pool(postgres.url(database), size_min=1, size_max=1, answer_seconds=2) as pool:
        with pytest.raises(OperationalError, match="no answer within"), pool.connection() as connection:
            connection.execute("SELECT pg_sleep(60)")
        with pool.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_the_apis_statements_have_a_timeout_on_the_server_too(postgres: PostgresServer, database: str) -> None:
    with psycopg.connect(postgres.url(database, role="tidings_api")) as connection:
        for name, value in (
            ("statement_timeout", "20s"),
            ("idle_in_transaction_session_timeout", "30s"),
            ("client_connection_check_interval", "5s"),
            ("tcp_user_timeout", "20s"),
        ):
            row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
            assert row == (value,) or (name.startswith("tcp_") and row is not None)
