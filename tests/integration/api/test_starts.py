"""Attempt starts: reported by the relay, stored if the dispatcher requested them, and shown until the attempt ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jsonschema
import orjson
import psycopg
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from services.api.composition import wire
from services.api.openapi import document
from services.api.settings import ApiSettings
from tests.infra.postgres import PostgresServer
from tests.process import ROOT
from tidings.contract.callback_token import callback_token
from tidings.contract.ids import new_event_id
from tidings.contract.signature import sign
from tidings.database.migrate import add_api_key

KEY = "k" * 32
ALICE = {"Authorization": "Bearer alice-key"}
STARTS = "/callbacks/relay/starts"
# The maximum age of a reported start, and the minimum time until a retry.
HOUR = timedelta(hours=1)


class Api:
    def __init__(self, http: Any, admin_url: str, registry: CollectorRegistry) -> None:
        self.http = http
        self.admin_url = admin_url
        self.registry = registry

    def submit(self) -> str:
        content = {"target": "demo-images", "input": {"prompt": "a"}}
        return str(self.http.post("/v1/submissions", json=content, headers=ALICE).json["id"])

    def tell(self, *starts: dict[str, Any], key: str = KEY, address: str = f"http://api{STARTS}") -> Any:
        body = orjson.dumps({"starts": starts})
        token = sign(key, address, body, now=int(time.time()))
        return self.http.post(STARTS, data=body, headers={"Upstash-Signature": token})

    def call_back(self, id_: str, **fields: Any) -> None:
        body = orjson.dumps({"status": 200, "body": "e30=", "sourceMessageId": "m", "maxRetries": 3} | fields)
        path = f"/callbacks/relay?submission={id_}"
        headers = {
            "Upstash-Signature": sign(KEY, f"http://api{path}", body, now=int(time.time())),
            "Authorization": f"Bearer {callback_token('internal', id_)}",
        }
        assert self.http.post(path, data=body, headers=headers).status_code == 200

    def shown(self, id_: str) -> Any:
        return self.http.get(f"/v1/submissions/{id_}", headers=ALICE).json

    def listed(self, **query: str) -> Any:
        return self.http.get("/v1/submissions", query_string={"limit": "100"} | query, headers=ALICE).json

    def rows(self) -> list[tuple[UUID, int, datetime]]:
        with psycopg.connect(self.admin_url) as connection:
            query = "SELECT submission_id, number, started_at FROM tidings.attempt_starts ORDER BY 1, 2"
            return connection.execute(query).fetchall()

    def counted(self, outcome: str) -> float | None:
        return self.registry.get_sample_value("tidings_attempt_starts_total", {"outcome": outcome})


def start(id_: str, number: int = 1, at: datetime | None = None, **changed: Any) -> dict[str, Any]:
    """The relay's report of an attempt's start."""
    told = {
        "messageId": "m",
        "label": id_,
        "retried": number - 1,
        "startedAt": int((at or datetime.now(UTC)).timestamp() * 1000),
        "data": callback_token("internal", id_),
    }
    return told | changed


@pytest.fixture
def api(postgres: PostgresServer, database: str) -> Iterator[Api]:
    with psycopg.connect(postgres.url(database)) as connection:
        add_api_key(connection, "alice-key", tenant="alice", name="a")
    settings = ApiSettings.model_validate(
        {
            "database_url": SecretStr(postgres.url(database, role="tidings_api")),
            "public_url": "http://api",
            "internal_token": SecretStr("internal"),
            "current_signing_key": SecretStr(KEY),
            "next_signing_key": SecretStr("n" * 32),
            "targets_file": ROOT / "targets.toml",
        }
    )
    registry = CollectorRegistry()
    with ExitStack() as closing:
        yield Api(wire(settings, registry, closing).flask.test_client(), postgres.url(database), registry)


def test_an_attempt_that_has_begun_is_shown_as_running_since_its_start(api: Api) -> None:
    id_, other = api.submit(), api.submit()
    before = datetime.now(UTC)
    assert api.tell(start(id_)).json == {"stored": 1}
    shown = api.shown(id_)
    assert shown["status"] == "running"
    since = datetime.fromisoformat(shown["running_since"])
    # The notice has milliseconds.
    assert before - timedelta(milliseconds=1) <= since <= datetime.now(UTC)
    assert shown["attempts"] == [
        {
            "number": 1,
            "status_code": None,
            "error": None,
            "fate": None,
            "retry_at": None,
            "started_at": shown["running_since"],
            "ended_at": None,
        }
    ]
    assert shown["outcome"] is None
    assert (api.shown(other)["status"], api.shown(other)["running_since"]) == ("queued", None)


def test_the_end_replaces_the_start_and_the_next_start_is_the_next_attempt(api: Api) -> None:
    id_ = api.submit()
    api.tell(start(id_, 1))
    in_an_hour = int((time.time() + HOUR.total_seconds()) * 1000)
    api.call_back(id_, status=500, retried=0, willRetry=True, nextRetryAt=in_an_hour, startedAt=int(time.time() * 1000))
    shown = api.shown(id_)
    assert (shown["status"], shown["running_since"]) == ("retrying", None)
    assert [attempt["status_code"] for attempt in shown["attempts"]] == [500]
    api.tell(start(id_, 2))
    shown = api.shown(id_)
    assert (shown["status"], shown["running_since"]) == ("running", shown["attempts"][1]["started_at"])
    assert [(attempt["number"], attempt["ended_at"] is None) for attempt in shown["attempts"]] == [
        (1, False),
        (2, True),
    ]
    api.call_back(id_, retried=1)
    shown = api.shown(id_)
    assert (shown["status"], shown["running_since"], len(shown["attempts"])) == ("succeeded", None, 2)


def test_late_repeated_and_reordered_starts_do_not_show_an_attempt_that_has_ended(api: Api) -> None:
    late, ended, cancelled, disordered = (api.submit() for _ in range(4))
    in_an_hour = int((time.time() + HOUR.total_seconds()) * 1000)
    api.call_back(late, status=500, retried=0, willRetry=True, nextRetryAt=in_an_hour)
    api.call_back(ended, retried=0)
    assert api.http.delete(f"/v1/submissions/{cancelled}", headers=ALICE).status_code == 200
    assert api.tell(*(start(id_) for id_ in (late, ended, cancelled))).json == {"stored": 3}
    assert api.tell(start(disordered, 2)).json == {"stored": 1}
    assert api.tell(start(disordered, 1), start(disordered, 1)).json == {"stored": 1}
    found = {id_: api.shown(id_) for id_ in (late, ended, cancelled, disordered)}
    assert [shown["status"] for shown in found.values()] == ["retrying", "succeeded", "cancelled", "running"]
    assert [len(shown["attempts"]) for shown in found.values()] == [1, 1, 0, 1]
    assert found[disordered]["attempts"][0]["number"] == 2


def test_an_attempt_that_is_repeated_keeps_its_first_start(api: Api) -> None:
    id_ = api.submit()
    assert api.tell(start(id_)).json == {"stored": 1}
    first = api.shown(id_)["running_since"]
    assert api.tell(start(id_, at=datetime.now(UTC) + HOUR)).json == {"stored": 0}
    assert api.shown(id_)["running_since"] == first
    assert (api.counted("stored"), api.counted("repeated")) == (1, 1)


@pytest.mark.parametrize("at", [datetime(1970, 1, 1, tzinfo=UTC), datetime(9998, 1, 1, tzinfo=UTC)])
def test_an_impossible_time_is_limited_to_a_possible_one(api: Api, at: datetime) -> None:
    id_ = api.submit()
    api.tell(start(id_, at=at))
    shown = api.shown(id_)
    created, since = (datetime.fromisoformat(shown[name]) for name in ("created_at", "running_since"))
    assert created <= since <= datetime.now(UTC)


def test_forged_and_unknown_starts_do_not_affect_the_others_of_the_request(api: Api) -> None:
    id_, other = api.submit(), api.submit()
    unknown = "01920000-0000-7000-8000-000000000001"
    forged = [
        start(other, data=callback_token("internal", id_)),
        start(other, data=""),
        start("x"),
        start(other, label=None),
    ]
    assert api.tell(*forged, start(unknown), start(id_)).json == {"stored": 1}
    assert [(str(row[0]), row[1]) for row in api.rows()] == [(id_, 1)]
    assert (api.counted("forged"), api.counted("repeated"), api.counted("stored")) == (4, 1, 1)
    assert api.shown(other)["status"] == "queued"


def test_a_report_without_the_relays_signature_is_401_and_stores_nothing(api: Api) -> None:
    id_ = api.submit()
    assert api.tell(start(id_), key="x" * 32).status_code == 401
    assert api.tell(start(id_), address=f"http://api/callbacks/relay?submission={id_}").status_code == 401
    assert api.http.post(STARTS, json={"starts": [start(id_)]}).status_code == 401
    signed = sign(KEY, f"http://api{STARTS}", b'{"starts":[]}', now=int(time.time()))
    answer = api.http.post(STARTS, json={"starts": [start(id_)]}, headers={"Upstash-Signature": signed})
    assert answer.status_code == 401
    assert api.rows() == []


def test_too_many_starts_and_too_large_reports_are_refused(api: Api) -> None:
    id_ = api.submit()
    assert api.tell(*[start(id_)] * 501).status_code == 400
    assert api.tell(start(id_, data="x" * 2 * 1024 * 1024)).status_code == 413
    assert api.tell().json == {"stored": 0}
    assert api.rows() == []


def test_the_list_derives_the_same_status_as_a_single_submission(api: Api) -> None:
    """The status derived in SQL equals that derived in Python, for each combination of ended attempts, starts and
    results.
    """
    attempts: tuple[tuple[tuple[int, timedelta | None], ...], ...] = (
        (),
        ((1, HOUR),),
        ((1, -HOUR),),
        ((1, None),),
        ((1, -HOUR), (2, HOUR)),
        # The callback of the first attempt is late.
        ((2, HOUR),),
    )
    starts: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (1, 2), (1, 3), (3,))
    outcomes = (None, "succeeded", "cancelled")
    mixtures = [(ended, begun, outcome) for ended in attempts for begun in starts for outcome in outcomes]
    ids = [api.submit() for _ in mixtures]
    for id_, mixture in zip(ids, mixtures, strict=True):
        _put(api, id_, *mixture)
    listed: dict[str, Any] = {}
    cursor: dict[str, str] = {}
    while len(listed) < len(ids):
        page = api.listed(**cursor)
        listed |= {each["id"]: each for each in page["submissions"]}
        cursor = {"cursor": page["cursor"]}
    for id_, mixture in zip(ids, mixtures, strict=True):
        shown = api.shown(id_)
        names = ("status", "running_since")
        assert [listed[id_][name] for name in names] == [shown[name] for name in names], mixture
    statuses = {each["status"] for each in listed.values()}
    assert statuses == {"queued", "running", "retrying", "succeeded", "cancelled"}
    for status in statuses:
        found = {each["id"] for each in _all(api, status)}
        assert found == {id_ for id_, each in listed.items() if each["status"] == status}
    assert {each["running_since"] is None for each in _all(api, "running")} == {True, False}


def _all(api: Api, status: str) -> list[Any]:
    found: list[Any] = []
    page = api.listed(status=status)
    found += page["submissions"]
    while page["cursor"] is not None:
        page = api.listed(status=status, cursor=page["cursor"])
        found += page["submissions"]
    return found


def _put(
    api: Api, id_: str, ended: tuple[tuple[int, timedelta | None], ...], begun: tuple[int, ...], outcome: str | None
) -> None:
    now = datetime.now(UTC)
    with psycopg.connect(api.admin_url) as connection:
        for number, retry_in in ended:
            connection.execute(
                "INSERT INTO tidings.attempts (submission_id, number, tenant, retry_at, ended_at, message_id)"
                " VALUES (%s, %s, 'alice', %s, %s, 'm')",
                (id_, number, None if retry_in is None else now + retry_in, now),
            )
        for number in begun:
            values = (id_, number, now + timedelta(seconds=number))
            connection.execute("INSERT INTO tidings.attempt_starts VALUES (%s, %s, %s)", values)
        if outcome is not None:
            connection.execute(
                "INSERT INTO tidings.results (submission_id, event_id, tenant, target, outcome, reason, submitted_at)"
                " VALUES (%s, %s, 'alice', 't', %s, %s, now())",
                (id_, new_event_id(), outcome, None if outcome == "succeeded" else "why"),
            )


def test_the_answer_conforms_to_the_openapi_document(api: Api) -> None:
    id_ = api.submit()
    api.tell(start(id_))
    components = {"components": document("0")["components"]}
    for content, name in ((api.shown(id_), "SubmissionShown"), (api.listed(), "Page")):
        jsonschema.validate(content, {"$ref": f"#/components/schemas/{name}", **components})
