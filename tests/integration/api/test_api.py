"""The api on a real database, through Flask's test client."""

from __future__ import annotations

import base64
import gzip
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import psycopg
import pytest
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry
from psycopg import sql
from pydantic import SecretStr

from services.api.composition import wire
from services.api.settings import ApiSettings
from stack.ports import free_ports
from tests.infra.postgres import PostgresServer
from tests.process import ROOT
from tidings.contract.callback_token import callback_token
from tidings.contract.signature import sign
from tidings.database.migrate import add_api_key

KEY = "k" * 32
ALICE, BOB = {"Authorization": "Bearer alice-key"}, {"Authorization": "Bearer bob-key"}


class Client:
    def __init__(self, http: FlaskClient, admin_url: str) -> None:
        self.http: Any = http  # the fields of answers are JSON of any shape
        self.admin_url = admin_url

    def submit(self, headers: dict[str, str] | None = None, **changed: Any) -> Any:
        content = {"target": "demo-images", "input": {"prompt": "a"}} | changed
        return self.http.post("/v1/submissions", json=content, headers=ALICE | (headers or {}))

    def call_back(self, id_: str, **fields: Any) -> Any:
        return self.call_back_as(id_, callback_token("internal", id_), **fields)

    def call_back_as(self, id_: str, proof: str, **fields: Any) -> Any:
        """Post a callback that the relay has signed, with `proof` as the dispatcher's token."""
        body = orjson.dumps({"status": 200, "body": "e30=", "sourceMessageId": "m", "maxRetries": 3} | fields)
        path = f"/callbacks/relay?submission={id_}"
        token = sign(KEY, f"http://api{path}", body, now=int(time.time()))
        return self.http.post(path, data=body, headers={"Upstash-Signature": token, "Authorization": f"Bearer {proof}"})

    def answered(self, content: Any, **fields: Any) -> str:
        """Store a submission that was answered with `content`; return its id."""
        id_ = str(self.submit().json["id"])
        body = content if isinstance(content, bytes) else orjson.dumps(content)
        assert self.call_back(id_, body=base64.b64encode(body).decode(), **fields).status_code == 200
        return id_

    def count(self, table: str) -> int:
        with psycopg.connect(self.admin_url) as connection:
            row = connection.execute(f"SELECT count(*) FROM tidings.{table}").fetchone()  # type: ignore[arg-type,unused-ignore]
        assert row is not None
        return int(row[0])


@pytest.fixture
def client(postgres: PostgresServer, database: str) -> Iterator[Client]:
    with psycopg.connect(postgres.url(database)) as connection:
        add_api_key(connection, "alice-key", tenant="alice", name="a")
        add_api_key(connection, "bob-key", tenant="bob", name="b")
    url = postgres.url(database, role="tidings_api")
    with ExitStack() as closing:
        yield Client(wire(_settings(url), CollectorRegistry(), closing).flask.test_client(), postgres.url(database))


def _settings(database_url: str, **given: str) -> ApiSettings:
    return ApiSettings.model_validate(
        {
            "database_url": SecretStr(database_url),
            "public_url": "http://api",
            "internal_token": SecretStr("internal"),
            "current_signing_key": SecretStr(KEY),
            "next_signing_key": SecretStr("n" * 32),
            "targets_file": ROOT / "targets.toml",
            "image_target": "demo-images",
            "input_bytes_max": 2048,
        }
        | given
    )


def test_a_submission_is_committed_before_the_answer(client: Client) -> None:
    answer = client.submit(metadata={"a": 1}, channel="x")
    assert answer.status_code == 202
    assert answer.headers["Location"] == answer.json["links"]["self"] == f"/v1/submissions/{answer.json['id']}"
    assert "Retry-After" in answer.headers
    shown = client.http.get(answer.headers["Location"], headers=ALICE)
    assert (shown.json["status"], shown.json["metadata"], shown.json["channel"]) == ("queued", {"a": 1}, "x")


def test_the_same_key_and_input_is_the_same_submission(client: Client) -> None:
    first = client.submit({"Idempotency-Key": '"once"'})
    again = client.submit({"Idempotency-Key": "once"})
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json["id"] == again.json["id"]
    other = client.submit({"Idempotency-Key": "once"}, input={"prompt": "b"})
    assert (other.status_code, other.json["errors"][0]["field"]) == (422, "Idempotency-Key")
    assert client.count("submissions") == 1


def test_concurrent_requests_with_one_key_make_one_submission(client: Client) -> None:
    def one(_: int) -> tuple[int, str]:
        answer = client.http.application.test_client().post(
            "/v1/submissions",
            json={"target": "demo-images", "input": {"prompt": "a"}},
            headers=ALICE | {"Idempotency-Key": "race"},
        )
        return answer.status_code, answer.get_json()["id"]

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(one, range(12), timeout=120))
    assert sorted(status for status, _ in answers) == [200] * 11 + [202]
    assert len({id_ for _, id_ in answers}) == client.count("submissions") == 1


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"target": "nobody"}, "target"),
        ({"colour": "red"}, "colour"),
        ({"channel": "No Spaces"}, "channel"),
        ({"webhook": "https://u:p@x"}, "webhook"),
        ({"webhook": "https://ok.example"}, "webhook"),
        ({"metadata": ["no object"]}, "metadata"),
    ],
)
def test_problems_name_the_field_and_store_nothing(client: Client, changed: dict[str, Any], field: str) -> None:
    answer = client.submit(**changed)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert field in [error["field"] for error in answer.json["errors"]]
    assert client.count("submissions") == 0


@pytest.mark.parametrize(("addresses", "status"), [(None, 422), ("public", 422), ("any", 202)])
def test_a_webhook_into_a_private_network_is_refused_unless_the_operator_permits_it(
    client: Client, postgres: PostgresServer, database: str, addresses: str | None, status: int
) -> None:
    given = {"webhooks": "on"} | ({} if addresses is None else {"webhook_addresses": addresses})
    settings = _settings(postgres.url(database, role="tidings_api"), **given)
    with ExitStack() as closing:
        http = wire(settings, CollectorRegistry(), closing).flask.test_client()
        strict = Client(http, client.admin_url)
        private = strict.submit(webhook="http://127.0.0.1:8083/connectors/tidings/restart")
        item = {"target": "demo-images", "input": 1, "webhook": "http://connect:8083"}
        batch = http.post("/v1/submissions/batch", json={"submissions": [item]}, headers=ALICE)
        public = strict.submit(webhook="https://hooks.example/a")
    assert (private.status_code, batch.status_code, public.status_code) == (status, status, 202)
    if status == 422:
        fields = [orjson.loads(answer.data)["errors"][0]["field"] for answer in (private, batch)]
        assert fields == ["webhook", "submissions.0.webhook"]
        assert "TIDINGS_WEBHOOK_ADDRESSES" in private.text


def test_a_batch_is_stored_completely_or_not_at_all(client: Client) -> None:
    good, bad = {"target": "demo-images", "input": 1}, {"target": "demo-images"}
    answer = client.http.post("/v1/submissions/batch", json={"submissions": [good, bad]}, headers=ALICE)
    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "submissions.1.input")
    assert client.count("submissions") == 0
    answer = client.http.post("/v1/submissions/batch", json={"submissions": [good] * 500}, headers=ALICE)
    assert (answer.status_code, len(answer.json["submissions"]), client.count("submissions")) == (202, 500, 500)


def test_an_input_in_a_batch_may_be_no_larger_than_one_alone(client: Client) -> None:
    items = [{"target": "demo-images", "input": "x" * size} for size in (1000, 3000)]
    answer = client.http.post("/v1/submissions/batch", json={"submissions": items}, headers=ALICE)
    assert (answer.status_code, [error["field"] for error in answer.json["errors"]]) == (422, ["submissions.1.input"])
    assert client.count("submissions") == 0


def test_a_body_that_is_too_large_is_413(client: Client) -> None:
    assert client.submit(input="x" * 3000).status_code == 413


def test_a_tenant_does_not_see_the_submissions_of_another(client: Client) -> None:
    id_ = client.submit().json["id"]
    for path in (f"/v1/submissions/{id_}", f"/v1/submissions/{id_}/result", f"/v1/submissions/{id_}/images/0"):
        assert client.http.get(path, headers=BOB).status_code == 404
        assert client.http.get(path).status_code == 401
        assert client.http.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client.http.delete(f"/v1/submissions/{id_}", headers=BOB).status_code == 404
    assert client.http.get("/v1/submissions", headers=BOB).json["submissions"] == []
    assert client.http.get(f"/get-image-is-ready?submissionId={id_}", headers=BOB).json == {"status": "notFound"}
    assert client.http.post("/internal/dispatches", json={"ids": [id_]}, headers=ALICE).status_code == 401


def test_the_status_is_derived_from_attempts_and_result(client: Client) -> None:
    id_ = client.submit().json["id"]

    def status() -> str:
        return str(client.http.get(f"/v1/submissions/{id_}", headers=ALICE).json["status"])

    later = int((time.time() + 60) * 1000)
    assert client.call_back(id_, status=500, willRetry=True, nextRetryAt=later).status_code == 200
    assert status() == "retrying"
    assert client.call_back(id_, status=500, retried=1, willRetry=True, nextRetryAt=1000).status_code == 200
    assert status() == "running"
    assert client.call_back(id_, retried=2, willRetry=False).status_code == 200
    assert status() == "succeeded"
    assert client.call_back(id_, status=500, retried=3, willRetry=False).status_code == 200
    assert status() == "succeeded"
    assert (client.count("results"), client.http.delete(f"/v1/submissions/{id_}", headers=ALICE).status_code) == (
        1,
        409,
    )


def test_only_an_answered_submission_has_a_link_to_its_result(client: Client) -> None:
    cancelled, answered = (client.submit().headers["Location"] for _ in range(2))
    assert client.http.delete(cancelled, headers=ALICE).json["links"] == {"self": cancelled}
    assert client.call_back(answered.rsplit("/", 1)[1], willRetry=False).status_code == 200
    links = client.http.get(answered, headers=ALICE).json["links"]
    assert client.http.get(links["result"], headers=ALICE).data == b"{}"


def test_an_unchanged_submission_is_304(client: Client) -> None:
    path = client.submit().headers["Location"]
    tag = client.http.get(path, headers=ALICE).headers["ETag"]
    assert client.http.get(path, headers=ALICE | {"If-None-Match": tag}).status_code == 304
    client.http.delete(path, headers=ALICE)
    assert client.http.get(path, headers=ALICE | {"If-None-Match": tag}).status_code == 200


def test_the_list_pages_newest_first_and_filters(client: Client) -> None:
    ids = [client.submit().json["id"] for _ in range(5)]
    client.http.delete(f"/v1/submissions/{ids[0]}", headers=ALICE)
    seen, cursor = [], ""
    while True:
        page = client.http.get(f"/v1/submissions?limit=2{cursor}", headers=ALICE).json
        seen += [item["id"] for item in page["submissions"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert seen == ids[::-1]
    for query, count in (
        ("status=cancelled", 1),
        ("status=queued", 4),
        ("target=demo-chat", 0),
        ("since=2999-01-01", 0),
    ):
        assert len(client.http.get(f"/v1/submissions?{query}", headers=ALICE).json["submissions"]) == count
    faulty = client.http.get("/v1/submissions?limit=0&status=odd&cursor=x&since=x&colour=1", headers=ALICE)
    assert faulty.status_code == 400
    assert {error["field"] for error in faulty.json["errors"]} == {"limit", "status", "cursor", "since", "colour"}


def test_dispatches_return_bodies_and_which_submissions_have_ended(client: Client) -> None:
    open_, ended = client.submit().json["id"], client.submit().json["id"]
    client.http.delete(f"/v1/submissions/{ended}", headers=ALICE)
    answer = client.http.post(
        "/internal/dispatches", json={"ids": [open_, ended]}, headers={"Authorization": "Bearer internal"}
    )
    found = {item["id"]: item for item in answer.json["submissions"]}
    assert (found[open_]["ended"], found[ended]["ended"]) == (False, True)
    assert found[open_]["body"] == '{"prompt":"a"}'


def test_a_malformed_or_unknown_callback_is_400(client: Client) -> None:
    assert client.call_back(client.submit().json["id"], status="x").status_code == 400
    assert client.call_back("01920000-0000-7000-8000-000000000001").status_code == 400
    assert client.count("attempts") == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=%C2%B2", "limit"),  # a superscript two: a digit to str.isdigit, and none to int
        ("limit=" + "9" * 5000, "limit"),
        ("limit=0", "limit"),
        ("target=%00", "target"),
        ("since=yesterday", "since"),
        ("cursor=%00", "cursor"),
        ("status=%00", "status"),
        ("colour=red", "colour"),
    ],
)
def test_an_invalid_parameter_of_the_list_is_refused_with_its_name(client: Client, query: str, field: str) -> None:
    answer = client.http.get(f"/v1/submissions?{query}", headers=ALICE)
    assert (answer.status_code, [error["field"] for error in answer.json["errors"]]) == (400, [field])


@pytest.mark.parametrize("since", ["0001-01-01", "9999-12-31T23:59:59-12:00", "2026-01-01T00:00:00%2B14:00"])
def test_the_list_accepts_every_valid_time(client: Client, since: str) -> None:
    assert client.http.get(f"/v1/submissions?since={since}", headers=ALICE).status_code == 200


@pytest.mark.parametrize(
    "changed",
    [{"metadata": {"a": "\0"}}, {"metadata": {"a\0": 1}}, {"input": {"prompt": "\0"}}, {"target": "demo-images\0"}],
)
def test_text_that_postgres_cannot_hold_is_refused(client: Client, changed: dict[str, Any]) -> None:
    answer = client.submit(**changed)
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert client.count("submissions") == 0


def test_numbers_beyond_64_bits_are_stored_and_shown(client: Client) -> None:
    path = client.submit(metadata={"a": 1e20}).headers["Location"]
    body = base64.b64encode(b'{"data":[], "seed": 123456789012345678901234}').decode()
    assert client.call_back(path.rsplit("/", 1)[1], body=body, willRetry=False).status_code == 200
    shown = client.http.get(path, headers=ALICE)
    assert (shown.status_code, shown.json["metadata"]["a"]) == (200, 1e20)
    assert shown.json["output"]["seed"] == pytest.approx(123456789012345678901234)


def test_an_answer_that_is_too_large_as_jsonb_has_no_output_and_keeps_its_result(client: Client) -> None:
    # jsonb writes 1e300 with all its digits.
    path = client.submit().headers["Location"]
    answer = b"[" + b",".join([b"1e300"] * 2500) + b"]"
    body = base64.b64encode(answer).decode()
    assert client.call_back(path.rsplit("/", 1)[1], body=body, willRetry=False).status_code == 200
    assert client.http.get(path, headers=ALICE).json["output"] is None
    assert client.http.get(f"{path}/result", headers=ALICE).data == answer


def test_every_route_that_is_not_public_is_401_without_credentials(client: Client) -> None:
    app = client.http.application
    asked = 0
    for rule in app.url_map.iter_rules():
        if app.view_functions[rule.endpoint].auth_decision == "public":
            continue
        path = (
            rule.rule.replace("<id:text>", "<text>")
            .replace("<text>", "01920000-0000-7000-8000-000000000001")
            .replace("<int:number>", "0")
        )
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            answer = client.http.open(path, method=method, json={} if method == "POST" else None)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["Content-Type"] == "application/problem+json"
            asked += 1
    assert asked >= 12


def test_readyz_reports_a_database_that_is_down_and_healthz_does_not(database: str, postgres: PostgresServer) -> None:
    [port] = free_ports(1)
    parts = urlsplit(postgres.url(database, role="tidings_api"))
    nobody = parts._replace(netloc=f"{parts.username}:{parts.password}@{parts.hostname}:{port}").geturl()
    with ExitStack() as closing:
        http: Any = wire(_settings(nobody), CollectorRegistry(), closing).flask.test_client()
        answer = http.get("/readyz")
        assert (answer.status_code, set(answer.json["faults"])) == (503, {"postgres"})
        assert http.get("/healthz").status_code == 200


def test_without_a_database_every_route_is_503_with_retry_after(client: Client, postgres: PostgresServer) -> None:
    path = client.submit().headers["Location"]
    # As while a database restarts: all connections are closed, and new ones are refused.
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        name = urlsplit(client.admin_url).path[1:]
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
    for headers in (None, {"Idempotency-Key": "a"}):
        _is_unavailable(client.submit(headers))
    _is_unavailable(client.http.get(path, headers=ALICE))
    _is_unavailable(client.http.delete(path, headers=ALICE))
    # A Retry-After would override the callback's own delays, and use up its retries in minutes.
    called_back = client.call_back(path.rsplit("/", 1)[1])
    assert (called_back.status_code, called_back.headers.get("Retry-After")) == (503, None)


def _is_unavailable(answer: Any) -> None:
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
    assert "Retry-After" in answer.headers
    assert "nothing" not in answer.json["detail"]


def test_the_relays_signature_alone_is_not_enough_to_forge_a_result(client: Client) -> None:
    id_, other = (str(client.submit().json["id"]) for _ in range(2))
    for proof in ("x", callback_token("internal", other), callback_token("guessed", id_)):
        assert client.call_back_as(id_, proof).status_code == 401
    assert client.count("results") == client.count("attempts") == 0
    assert client.call_back(id_).status_code == 200


@pytest.mark.parametrize("status", [600, 783, 999])
def test_a_status_that_http_does_not_define_is_a_failure_and_ends_the_submission(client: Client, status: int) -> None:
    id_ = str(client.submit().json["id"])
    assert client.call_back(id_, status=status, willRetry=True).json == {"status": "attempt"}
    assert client.call_back(id_, status=status, retried=1, willRetry=False).json == {"status": "failed"}
    shown = client.http.get(f"/v1/submissions/{id_}", headers=ALICE).json
    assert (shown["outcome"], shown["status_code"]) == ("failed", None)
    assert shown["reason"] == f"the provider answered {status}"
    assert [attempt["status_code"] for attempt in shown["attempts"]] == [None, None]


def test_a_truncated_answer_is_a_failure(client: Client) -> None:
    id_ = client.answered(
        b'{"data": [{"b64_json": "AA', bodyTruncated=True, bodyUrl="http://relay/v2/messages/m/body/0"
    )
    shown = client.http.get(f"/v1/submissions/{id_}", headers=ALICE).json
    assert (shown["outcome"], shown["status_code"], shown["result_size"]) == ("failed", 200, None)
    assert "too large" in shown["reason"]
    assert "http://relay/v2/messages/m/body/0" in shown["reason"]
    assert client.http.get(f"/v1/submissions/{id_}/result", headers=ALICE).status_code == 404


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate"])
def test_a_compressed_answer_is_read_and_returned_as_it_was_sent(client: Client, coding: str) -> None:
    content = orjson.dumps({"data": [{"b64_json": base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()}]})
    compressed = gzip.compress(content) if coding != "deflate" else zlib.compress(content)
    id_ = client.answered(compressed, header={"Content-Encoding": [coding]})
    shown = client.http.get(f"/v1/submissions/{id_}", headers=ALICE).json
    assert shown["output"] == orjson.loads(content)
    result = client.http.get(f"/v1/submissions/{id_}/result", headers=ALICE)
    assert (result.data, result.headers["Content-Encoding"]) == (compressed, coding)
    assert client.http.get(f"/v1/submissions/{id_}/images/0", headers=ALICE).data == b"\x89PNG\r\n\x1a\n"


def test_an_error_in_a_compressed_answer_is_a_failure(client: Client) -> None:
    answer = gzip.compress(b'{"error": {"message": "no credit"}}')
    id_ = client.answered(answer, header={"content-encoding": ["gzip"]}, willRetry=False)
    assert (
        client.http.get(f"/v1/submissions/{id_}", headers=ALICE).json["reason"]
        == "the provider answered 200: no credit"
    )


@pytest.mark.parametrize("answer", [b"\x1f\x8b cut", gzip.compress(bytes(65 * 1024 * 1024))], ids=["damaged", "a bomb"])
def test_an_answer_with_an_unknown_coding_is_kept_as_the_result(client: Client, answer: bytes) -> None:
    id_ = client.answered(answer, header={"Content-Encoding": ["gzip"]})
    shown = client.http.get(f"/v1/submissions/{id_}", headers=ALICE).json
    assert (shown["outcome"], shown["output"]) == ("succeeded", None)
    assert client.http.get(f"/v1/submissions/{id_}/result", headers=ALICE).data == answer
    assert client.http.get(f"/v1/submissions/{id_}/images/0", headers=ALICE).status_code == 404


@pytest.mark.parametrize("field", ["é", "a\ud83d"])
def test_a_picture_with_invalid_base64_is_left_out_of_the_submission(client: Client, field: str) -> None:
    answer = orjson.dumps({"data": [{"b64_json": field.encode("utf-8", "replace").decode()}]})
    id_ = client.answered(answer)
    assert client.http.get(f"/v1/submissions/{id_}", headers=ALICE).status_code == 200
    assert client.http.get(f"/v1/submissions/{id_}/images/0", headers=ALICE).status_code == 404
    ready = client.http.get(f"/get-image-is-ready?submissionId={id_}", headers=ALICE)
    assert ready.json["status"] == "unableToGenerate"


def test_a_picture_with_empty_base64_and_an_address_is_the_address(client: Client) -> None:
    id_ = client.answered({"data": [{"b64_json": "", "url": "https://img.example/1.png"}]})
    assert (
        client.http.get(f"/v1/submissions/{id_}/images/0", headers=ALICE).headers["Location"]
        == "https://img.example/1.png"
    )


@pytest.mark.parametrize("url", ["http://x:99999/", "http://[x/", "http://x/\r\nA: b", "http:///x", "ftp://x/"])
def test_an_invalid_address_of_a_picture_is_left_out(client: Client, url: str) -> None:
    id_ = client.answered({"data": [{"url": url}, {"url": "https://img.example/2.png"}]})
    answer = client.http.get(f"/v1/submissions/{id_}/images/0", headers=ALICE)
    assert answer.headers["Location"] == "https://img.example/2.png"


def test_a_content_type_with_a_line_break_is_returned_without_it(client: Client) -> None:
    id_ = client.answered({}, header={"Content-Type": ["text/x\r\nSet-Cookie: a=b"]})
    answer = client.http.get(f"/v1/submissions/{id_}/result", headers=ALICE)
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers


def test_an_escaped_backslash_before_u0000_is_stored_as_text(client: Client) -> None:
    text = "what does \\u0000 mean in JSON?"
    answer = client.submit(input={"prompt": text})
    assert answer.status_code == 202
    id_ = client.answered({"text": text})
    assert client.http.get(f"/v1/submissions/{id_}", headers=ALICE).json["output"] == {"text": text}


@pytest.mark.parametrize("empty", ["", False, [], {}, None])
def test_an_empty_error_field_is_not_an_error(client: Client, empty: Any) -> None:
    id_ = client.answered({"error": empty, "data": []})
    assert client.http.get(f"/v1/submissions/{id_}", headers=ALICE).json["outcome"] == "succeeded"


def test_an_unknown_fate_is_shown_with_the_attempt_and_in_the_reason(client: Client) -> None:
    id_ = str(client.submit().json["id"])
    client.call_back(id_, status=0, body="", error="the connection was closed", fate="unknown", willRetry=False)
    shown = client.http.get(f"/v1/submissions/{id_}", headers=ALICE).json
    assert shown["attempts"][0]["fate"] == "unknown"
    assert shown["reason"] == "the connection was closed; the provider may have carried the call out"
    assert "tidings_attempts_unknown_total 1.0" in client.http.get("/metrics").text


def test_a_submission_may_define_its_expiry(client: Client) -> None:
    shown = client.http.get(client.submit(expires_in=90).headers["Location"], headers=ALICE).json
    created, expires = (datetime.fromisoformat(shown[name]) for name in ("created_at", "expires_at"))
    assert (expires - created).total_seconds() == 90
    assert client.http.get(client.submit().headers["Location"], headers=ALICE).json["expires_at"] is None


@pytest.mark.parametrize("seconds", [0, -1, 1.5, "x", 30 * 86_400 + 1])
def test_an_invalid_expiry_is_refused(client: Client, seconds: Any) -> None:
    answer = client.submit(expires_in=seconds)
    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "expires_in")


def test_a_target_has_a_default_and_a_maximum_of_the_expiry(
    postgres: PostgresServer, database: str, client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "targets.toml"
    file.write_text('[brief]\nurl = "https://p.example/"\nexpires_in_seconds = 60\nexpires_in_seconds_max = 120\n')
    settings = _settings(postgres.url(database, role="tidings_api")).model_copy(update={"targets_file": file})
    with ExitStack() as closing:
        http: Any = wire(settings, CollectorRegistry(), closing).flask.test_client()

        def submit(**asked: Any) -> Any:
            return http.post("/v1/submissions", json={"target": "brief", "input": 1} | asked, headers=ALICE)

        shown = http.get(submit().headers["Location"], headers=ALICE).json
        created, expires = (datetime.fromisoformat(shown[name]) for name in ("created_at", "expires_at"))
        assert (expires - created).total_seconds() == 60
        assert submit(expires_in=120).status_code == 202
        refused = submit(expires_in=121)
        assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "expires_in")
        assert "120" in refused.json["errors"][0]["why"]


def test_the_content_of_an_ended_submission_can_be_erased(client: Client) -> None:
    id_ = str(client.submit(input={"prompt": "private-prompt"}).json["id"])
    path = f"/v1/submissions/{id_}"
    assert client.http.delete(f"{path}/content", headers=ALICE).status_code == 409
    client.call_back(id_, status=500, error="quoted private-prompt", willRetry=True)
    client.call_back(id_, retried=1, body=base64.b64encode(b'{"data": "private-answer"}').decode())
    assert client.http.delete(f"{path}/content", headers=BOB).status_code == 404
    removed = client.http.delete(f"{path}/content", headers=ALICE)
    assert (removed.status_code, removed.json["outcome"], removed.json["output"]) == (200, "succeeded", None)
    assert removed.json["content_removed_at"] is not None
    assert client.http.get(f"{path}/result", headers=ALICE).status_code == 410
    again = client.http.delete(f"{path}/content", headers=ALICE)
    assert again.json["content_removed_at"] == removed.json["content_removed_at"]
    client.call_back(id_, retried=2, status=500, sourceMessageId="late", error="late, quoted private-prompt")
    assert client.http.get(path, headers=ALICE).json["attempts"][2]["error"] == "the content was removed"
    client.call_back(id_, retried=3, sourceMessageId="later", body=base64.b64encode(b"private-answer").decode())
    with psycopg.connect(client.admin_url) as connection:
        tables = ("submissions", "attempts", "results", "result_nudges", "content_removals")
        rows = [connection.execute(f"SELECT t::text FROM tidings.{table} AS t".encode()).fetchall() for table in tables]
        told = connection.execute("SELECT message_ids FROM tidings.content_removals ORDER BY removed_at").fetchall()
    # The hexadecimal form of bytea.
    for secret in ("private", b"private".hex()):
        assert secret not in repr(rows)
    # Each later callback causes another removal at the relay, which stores what the callback contained. A repeated
    # removal has no effect until the first is settled.
    assert told == [(["m"],), (["late", "m"],), (["late", "later", "m"],)]
    with psycopg.connect(client.admin_url) as connection:
        connection.execute("UPDATE tidings.content_removals SET settled_at = clock_timestamp()")
    for _ in range(2):
        assert client.http.delete(f"{path}/content", headers=ALICE).status_code == 200
    assert client.count("content_removals") == len(told) + 1


def test_callbacks_of_a_submission_that_was_not_erased_cause_no_removal(client: Client) -> None:
    id_ = str(client.submit().json["id"])
    client.call_back(id_, status=500, willRetry=True)
    client.call_back(id_, retried=1)
    client.call_back(id_, retried=1)
    assert client.count("content_removals") == 0


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/submissions", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("GET", "/v1/submissions/batch", {"OPTIONS", "POST"}),
        ("POST", "/v1/submissions/01920000-0000-7000-8000-000000000001", {"DELETE", "GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/openapi.json", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_wrong_method_is_405_with_the_allowed_methods(
    client: Client, method: str, path: str, allowed: set[str]
) -> None:
    answer = client.http.open(path, method=method, headers=ALICE)
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == allowed
    asked = client.http.open(path, method="OPTIONS")
    assert (asked.status_code, set(asked.headers["Allow"].split(", "))) == (200, allowed)


def test_the_key_is_checked_before_the_query(client: Client) -> None:
    assert client.http.get("/v1/submissions?limit=x").status_code == 401


def test_a_time_before_1970_is_earlier_than_all_submissions(client: Client) -> None:
    client.submit()
    for since in ("1960-01-01", "0001-01-01"):
        assert len(client.http.get(f"/v1/submissions?since={since}", headers=ALICE).json["submissions"]) == 1


def test_a_filtered_list_reads_a_bounded_part_of_the_history_at_a_time(client: Client) -> None:
    first = client.submit().json["id"]
    client.http.delete(f"/v1/submissions/{first}", headers=ALICE)
    with psycopg.connect(client.admin_url) as connection:
        connection.execute(
            "INSERT INTO tidings.submissions (id, tenant, target, body, content_type, fingerprint)"
            " SELECT uuidv7(), 'alice', 'x', '', 'application/json', '' FROM generate_series(1, 2500)"
        )
    for query in ("status=cancelled", "target=demo-images"):
        found, pages, cursor = [], 0, ""
        while True:
            page = client.http.get(f"/v1/submissions?{query}{cursor}", headers=ALICE).json
            found += [item["id"] for item in page["submissions"]]
            pages += 1
            if page["cursor"] is None:
                break
            cursor = f"&cursor={page['cursor']}"
        assert (found, pages) == ([first], 3)


def test_bodies_that_exceed_the_limit_together_are_left_out_unread(client: Client) -> None:
    ids = [client.submit().json["id"] for _ in range(5)]
    with psycopg.connect(client.admin_url) as connection:
        connection.execute("UPDATE tidings.submissions SET body = convert_to(repeat('x', 5 * 1024 * 1024), 'UTF8')")
    headers = {"Authorization": "Bearer internal"}
    answer = client.http.post("/internal/dispatches", json={"ids": ids}, headers=headers).json
    assert (len(answer["submissions"]), len(answer["left_out"])) == (3, 2)
    assert {item["id"] for item in answer["submissions"]} | set(answer["left_out"]) == set(ids)
    rest = client.http.post("/internal/dispatches", json={"ids": answer["left_out"]}, headers=headers).json
    assert (len(rest["submissions"]), rest["left_out"]) == (2, [])


def test_a_batch_has_a_limit_of_its_own(client: Client) -> None:
    body = b'{"submissions":[' + b" " * (33 * 1024 * 1024) + b"]}"
    answer = client.http.post("/v1/submissions/batch", data=body, headers=ALICE, content_type="application/json")
    assert answer.status_code == 413


def batch(client: Client, prompts: list[str], key: str | None = "once") -> Any:
    items = [{"target": "demo-images", "input": {"prompt": prompt}} for prompt in prompts]
    headers = ALICE if key is None else ALICE | {"Idempotency-Key": key}
    return client.http.post("/v1/submissions/batch", json={"submissions": items}, headers=headers)


def test_a_repeated_batch_with_the_same_key_is_stored_once(client: Client) -> None:
    first, again = batch(client, ["a", "b", "c"]), batch(client, ["a", "b", "c"])
    ids = [item["id"] for item in first.json["submissions"]]
    assert [item["id"] for item in again.json["submissions"]] == ids
    assert len(set(ids)) == client.count("submissions") == 3
    for id_, prompt in zip(ids, "abc", strict=True):
        with psycopg.connect(client.admin_url) as connection:
            row = connection.execute("SELECT body FROM tidings.submissions WHERE id = %s", (id_,)).fetchone()
        assert row is not None
        assert orjson.loads(row[0]) == {"prompt": prompt}
    for other in (["a", "b"], ["a", "b", "c", "d"], ["a", "c", "b"]):
        refused = batch(client, other)
        assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "Idempotency-Key")
    assert client.submit({"Idempotency-Key": "once"}).status_code == 422
    assert client.count("submissions") == 3
    assert batch(client, ["a"], None).status_code == batch(client, ["a"], None).status_code == 202
    assert client.count("submissions") == 5


def test_concurrent_requests_with_the_same_batch_store_it_once(client: Client) -> None:
    ids: set[str] = set()
    threads = [
        threading.Thread(
            target=lambda: ids.update(i["id"] for i in batch(client, ["a", "b"]).get_json()["submissions"])
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(ids) == client.count("submissions") == 2


def test_the_articles_endpoint_requires_a_key_and_a_head_submits_nothing(client: Client) -> None:
    headers = ALICE | {"Idempotency-Key": "k", "Accept": "application/json"}
    made = [client.http.get("/generate-image?prompt=x", headers=headers).json["submissionId"] for _ in range(2)]
    assert made[0] == made[1]
    head = client.http.head("/generate-image?prompt=x", headers=ALICE)
    assert (head.status_code, head.headers["Allow"]) == (405, "GET, POST, OPTIONS")
    assert client.count("submissions") == 1
