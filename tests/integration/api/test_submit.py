"""`POST /v1/submissions` through its two edges, the port and Flask's view, which call one function: the same requests
get the same replies and store the same rows.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import psycopg
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from services.api import listeners
from services.api.asgi import AsgiApp
from services.api.composition import wire
from services.api.settings import ApiSettings
from services.api.submit import INLINE_BYTES_MAX, PATH
from tests.infra.postgres import PostgresServer
from tests.process import ROOT
from tidings.database.migrate import add_api_key

# Larger than a body that the event loop parses itself.
BYTES_MAX = INLINE_BYTES_MAX + 2048
GOOD = {"target": "demo-images", "input": {"prompt": "a"}}
GOOD_BODY = orjson.dumps(GOOD)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OWN = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[\d:.]+Z")


@dataclass(frozen=True)
class Request:
    """A request. A header of None is left out. `gone`: the client disconnects before its body is complete."""

    name: str
    body: bytes = GOOD_BODY
    headers: dict[str, str | None] = field(default_factory=dict)
    method: str = "POST"
    path: str = "/v1/submissions"
    gone: bool = False


def changed(**fields: Any) -> bytes:
    return orjson.dumps(GOOD | fields)


TABLE = (
    Request("plain"),
    Request("with all fields", changed(metadata={"a": [1]}, channel="c-1", webhook="https://ok.example/x")),
    Request("with a charset", headers={"Content-Type": "application/json; charset=utf-8"}),
    Request("with a query", path="/v1/submissions?colour=red"),
    Request("scheme in lower case", headers={"Authorization": "bearer  alice-key "}),
    Request("traced", headers={"traceparent": TRACE}),
    Request("traced badly", headers={"traceparent": "00-x"}),
    Request("odd host", headers={"Host": "a b/c"}),
    Request("an input of 0", changed(input=0)),
    Request("text of all kinds", changed(input="\u00e9\u20ac\U0001f600\u2028")),
    Request("body as large as allowed", changed(input="x" * (BYTES_MAX - len(changed(input=""))))),
    Request("wrong key", headers={"Authorization": "Bearer wrong"}),
    Request("wrong scheme", headers={"Authorization": "Basic YTpi"}),
    Request("empty key", headers={"Authorization": "Bearer "}),
    Request("key beyond ASCII", headers={"Authorization": "Bearer \u00e9"}),
    Request("two keys", headers={"Authorization": "Bearer alice-key,Bearer alice-key"}),
    Request("no JSON", b"{"),
    Request("no UTF-8", b'{"target":"demo-images","input":"\xff"}'),
    Request("NaN", b'{"target":"demo-images","input":NaN}'),
    Request("NUL", b'{"target":"demo-images","input":"\\u0000"}'),
    Request("empty", b""),
    Request("too deep", b'{"target":"demo-images","input":' + b"[" * 70 + b"]" * 70 + b"}"),
    Request("deeper than a parser", b"[" * 1000 + b"]" * 1000),
    Request("a list", b"[1]"),
    Request("no input", b'{"target":"demo-images"}'),
    Request("unknown field", changed(colour="red")),
    Request("unknown target", changed(target="nobody")),
    Request("unknown target and field", changed(target="nobody", colour="red")),
    Request("bad channel", changed(channel="No Spaces")),
    Request("bad webhook", changed(webhook="https://u:p@x")),
    Request("no header Authorization", headers={"Authorization": None}),
    Request("another type", headers={"Content-Type": "text/plain"}),
    Request("no type", headers={"Content-Type": None}),
    Request("too large", changed(input="x" * BYTES_MAX)),
    Request("too large and no JSON", b"{" * (BYTES_MAX + 1)),
    Request("no Host", headers={"Host": None}),
    Request("compressed", headers={"Content-Encoding": "gzip"}),
    Request("a length that is no number", headers={"Content-Length": "1_0"}),
    Request("a length below zero", headers={"Content-Length": "-1"}),
    Request("a length of a thousand digits", headers={"Content-Length": "9" * 1000}),
    Request("no length", headers={"Content-Length": None}),
    Request("chunked", headers={"Content-Length": None, "Transfer-Encoding": "chunked"}),
    Request("an idempotency key", headers={"Idempotency-Key": "a-key"}),
    Request("an empty idempotency key", headers={"Idempotency-Key": ""}),
    Request("prefers to wait", headers={"Prefer": "wait=1"}),
    Request("from a browser", headers={"Origin": "https://x.example"}),
    Request("expects to be told to go on", headers={"Expect": "100-continue"}),
    Request("listed", b"", {"Content-Length": None, "Content-Type": None}, method="GET"),
    Request("put", method="PUT"),
    Request("head", b"", method="HEAD"),
    Request("a slash more", path="/v1/submissions/"),
    Request("two slashes", path="//v1/submissions"),
    Request("another path", path="/v1/submission"),
)


# The replies to the rows of TABLE that are refused. All others are answered with 202, and stored.
REFUSED = {
    200: ["listed", "head"],
    400: [
        "no JSON",
        "no UTF-8",
        "NaN",
        "NUL",
        "empty",
        "too deep",
        "deeper than a parser",
        "no Host",
        "no length",
        "an empty idempotency key",
        "two slashes",
    ],
    401: ["wrong key", "wrong scheme", "empty key", "key beyond ASCII", "two keys", "no header Authorization"],
    404: ["a slash more", "another path"],
    405: ["put"],
    413: [
        "too large",
        "too large and no JSON",
        "a length that is no number",
        "a length below zero",
        "a length of a thousand digits",
    ],
    415: ["another type", "compressed"],
    422: [
        "a list",
        "no input",
        "unknown field",
        "unknown target",
        "unknown target and field",
        "bad channel",
        "bad webhook",
    ],
}


def scope_of(request: Request) -> dict[str, Any]:
    """The head as granian creates it: names in lower case, and unchanged values."""
    headers = {"Host": "x", "Authorization": "Bearer alice-key", "Content-Type": "application/json"}
    merged: dict[str, str | None] = {**headers, "Content-Length": str(len(request.body)), **request.headers}
    path, _, query = request.path.partition("?")
    pairs = [(n.lower().encode(), v.encode()) for n, v in merged.items() if v is not None]
    return {
        "type": "http", "http_version": "1.1", "method": request.method, "raw_path": path.encode(),
        "query_string": query.encode(), "headers": pairs, "server": ("x", "80"), "client": ("y", "1"),
    }  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """The reply without ids and times, which differ for each submission."""

    status: int
    headers: dict[str, str]
    body: bytes


def answer(app: AsgiApp, request: Request) -> Answer | None:
    """The reply. None when the client had disconnected."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if request.gone:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope_of(request), receive, send))
    if not sent:
        return None
    start, rest = sent
    names = [name for name, _ in start["headers"]]
    assert len(set(names)) == len(names)
    headers = {name.decode(): OWN.sub("*", value.decode()) for name, value in start["headers"]}
    return Answer(start["status"], headers, OWN.sub("*", rest["body"].decode()).encode())


@dataclass(frozen=True)
class Api:
    """The api with each edge, on one database. `flask` is a port that passes the route to Flask."""

    port: AsgiApp
    flask: AsgiApp
    registry: CollectorRegistry
    admin_url: str

    def stored(self) -> list[Any]:
        """Return all rows in order, without ids and times, and delete them."""
        with psycopg.connect(self.admin_url) as connection:
            connection.execute("DELETE FROM tidings.idempotency_keys")
            return connection.execute(
                "WITH gone AS (DELETE FROM tidings.submissions RETURNING *) SELECT tenant, target, body, content_type,"
                " metadata, channel, webhook, idempotency_key, fingerprint, traceparent FROM gone ORDER BY id"
            ).fetchall()

    def counted(self) -> float:
        return self.registry.get_sample_value("tidings_submissions_total", {"target": "demo-images"}) or 0.0


@pytest.fixture
def api(postgres: PostgresServer, database: str) -> Iterator[Api]:
    with psycopg.connect(postgres.url(database)) as connection:
        add_api_key(connection, "alice-key", tenant="alice", name="a")
    settings = ApiSettings.model_validate(
        {
            "database_url": SecretStr(postgres.url(database, role="tidings_api")),
            "internal_token": SecretStr("internal"),
            "current_signing_key": SecretStr("k" * 32),
            "next_signing_key": SecretStr("n" * 32),
            "targets_file": ROOT / "targets.toml",
            "webhooks": "on",
            "input_bytes_max": BYTES_MAX,
        }
    )
    registry = CollectorRegistry()
    with ExitStack() as closing:
        wired = wire(settings, registry, closing)
        listener = listeners.public(settings, wired.dependencies.submit, wired.dependencies.recording)
        bodies = {**listener.bodies, PATH: replace(listener.bodies[PATH], endpoint=None)}
        flask = AsgiApp(
            wired.flask,
            replace(listener, bodies=bodies),
            authentication=wired.dependencies.authentication,
            log=logging.getLogger("test"),
        )
        yield Api(wired.public, flask, registry, postgres.url(database))


def test_both_edges_answer_and_store_the_same(api: Api) -> None:
    differing = {}
    status = {name: status for status, names in REFUSED.items() for name in names}
    for request in TABLE:
        expected = status.get(request.name, 202)
        found = (answer(api.port, request), api.stored()), (answer(api.flask, request), api.stored())
        answered, stored = found[0]
        right = answered is not None and answered.status == expected and len(stored) == (expected == 202)
        if found[0] != found[1] or not right:
            differing[request.name] = found
    assert differing == {}


def test_a_repeat_by_one_edge_returns_the_submission_of_the_other(api: Api) -> None:
    keyed = Request("keyed", headers={"Idempotency-Key": '"once"'})
    chunked = Request("in chunks", headers={**keyed.headers, "Content-Length": None, "Transfer-Encoding": "chunked"})
    for first, second in ((api.port, api.flask), (api.flask, api.port)):
        key = {"Idempotency-Key": f"key-{first is api.port}"}
        made = answer(first, Request("first", headers=dict(key)))
        repeats = [answer(app, Request("again", headers=dict(key))) for app in (first, second)]
        others = [answer(app, Request("other", changed(input=1), headers=dict(key))) for app in (first, second)]
        assert (made and made.status, repeats[0] and repeats[0].status, others[0] and others[0].status) == (
            202,
            200,
            422,
        )
        assert repeats[0] is not None
        assert {"etag", "retry-after"} <= repeats[0].headers.keys()
        assert (repeats[0], others[0]) == (repeats[1], others[1])
        assert len(api.stored()) == 1
    assert [answer(app, chunked).status for app in (api.port, api.flask)] == [202, 200]  # type: ignore[union-attr]


def test_both_edges_make_the_same_authorization_decision(api: Api) -> None:
    for headers in ({"Authorization": None}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}):
        for app in (api.port, api.flask):
            refused = answer(app, Request("", headers=dict(headers)))
            assert refused is not None
            assert refused.status == 401
            assert refused.headers["www-authenticate"] == 'Bearer realm="tidings"'
    assert api.stored() == []


def test_requests_through_both_edges_are_counted(api: Api) -> None:
    plain = TABLE[0]
    for app in (api.port, api.flask):
        before = api.counted()
        answered = answer(app, plain)
        assert answered is not None
        assert answered.status == 202
        assert api.counted() == before + 1


def test_a_client_that_disconnected_before_its_body_arrived_is_not_answered(api: Api) -> None:
    request = Request("gone", gone=True)
    assert (answer(api.port, request), answer(api.flask, request)) == (None, None)
    assert api.stored() == []
