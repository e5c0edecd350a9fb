"""The hot route and Flask's view of the same path are one api: the same requests get the same answers and store the
same.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import orjson
import psycopg
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from services.api import listeners
from services.api.composition import wire
from services.api.front import Front
from services.api.head import read_head
from services.api.hot import is_plain
from services.api.settings import ApiSettings
from tests.infra.postgres import PostgresServer
from tests.process import ROOT
from tidings.database.migrate import add_api_key

BYTES_MAX = 2048
GOOD = {"target": "demo-images", "input": {"prompt": "a"}}
GOOD_BODY = orjson.dumps(GOOD)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OWN = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[\d:.]+Z")


@dataclass(frozen=True)
class Asked:
    """A request; `hot` says who is to answer it. Headers of None are left out; `gone`: the client leaves before its
    body.
    """

    name: str
    body: bytes = GOOD_BODY
    headers: dict[str, str | None] = field(default_factory=dict)
    method: str = "POST"
    path: str = "/v1/submissions"
    hot: bool = True
    gone: bool = False


def changed(**fields: Any) -> bytes:
    return orjson.dumps(GOOD | fields)


TABLE = (
    Asked("plain"),
    Asked("with all fields", changed(metadata={"a": [1]}, channel="c-1", webhook="https://ok.example/x")),
    Asked("with a charset", headers={"Content-Type": "application/json; charset=utf-8"}),
    Asked("with a query", path="/v1/submissions?colour=red"),
    Asked("scheme in lower case", headers={"Authorization": "bearer  alice-key "}),
    Asked("traced", headers={"traceparent": TRACE}),
    Asked("traced badly", headers={"traceparent": "00-x"}),
    Asked("odd host", headers={"Host": "a b/c"}),
    Asked("an input of 0", changed(input=0)),
    Asked("text of all kinds", changed(input="\u00e9\u20ac\U0001f600\u2028")),
    Asked("body as large as allowed", changed(input="x" * (BYTES_MAX - len(changed(input=""))))),
    Asked("wrong key", headers={"Authorization": "Bearer wrong"}),
    Asked("wrong scheme", headers={"Authorization": "Basic YTpi"}),
    Asked("empty key", headers={"Authorization": "Bearer "}),
    Asked("key beyond ASCII", headers={"Authorization": "Bearer \u00e9"}),
    Asked("two keys", headers={"Authorization": "Bearer alice-key,Bearer alice-key"}),
    Asked("no JSON", b"{"),
    Asked("no UTF-8", b'{"target":"demo-images","input":"\xff"}'),
    Asked("NaN", b'{"target":"demo-images","input":NaN}'),
    Asked("NUL", b'{"target":"demo-images","input":"\\u0000"}'),
    Asked("empty", b""),
    Asked("too deep", b'{"target":"demo-images","input":' + b"[" * 70 + b"]" * 70 + b"}"),
    Asked("deeper than a parser", b"[" * 1000 + b"]" * 1000),
    Asked("a list", b"[1]"),
    Asked("no input", b'{"target":"demo-images"}'),
    Asked("unknown field", changed(colour="red")),
    Asked("unknown target", changed(target="nobody")),
    Asked("unknown target and field", changed(target="nobody", colour="red")),
    Asked("bad channel", changed(channel="No Spaces")),
    Asked("bad webhook", changed(webhook="https://u:p@x")),
    Asked("no header Authorization", headers={"Authorization": None}, hot=False),
    Asked("another type", headers={"Content-Type": "text/plain"}, hot=False),
    Asked("no type", headers={"Content-Type": None}, hot=False),
    Asked("too large", changed(input="x" * BYTES_MAX), hot=False),
    Asked("too large and no JSON", b"{" * (BYTES_MAX + 1), hot=False),
    Asked("no Host", headers={"Host": None}),
    Asked("compressed", headers={"Content-Encoding": "gzip"}),
    Asked("a length that is no number", headers={"Content-Length": "1_0"}, hot=False),
    Asked("a length below zero", headers={"Content-Length": "-1"}, hot=False),
    Asked("a length of a thousand digits", headers={"Content-Length": "9" * 1000}, hot=False),
    Asked("no length", headers={"Content-Length": None}, hot=False),
    Asked("chunked", headers={"Content-Length": None, "Transfer-Encoding": "chunked"}, hot=False),
    Asked("a key for repeats, badly", headers={"Idempotency-Key": ""}, hot=False),
    Asked("prefers to wait", headers={"Prefer": "wait=1"}, hot=False),
    Asked("from a browser", headers={"Origin": "https://x.example"}, hot=False),
    Asked("expects to be told to go on", headers={"Expect": "100-continue"}, hot=False),
    Asked("listed", b"", {"Content-Length": None, "Content-Type": None}, method="GET", hot=False),
    Asked("put", method="PUT", hot=False),
    Asked("head", b"", method="HEAD", hot=False),
    Asked("a slash more", path="/v1/submissions/", hot=False),
    Asked("two slashes", path="//v1/submissions", hot=False),
    Asked("another path", path="/v1/submission", hot=False),
)


# Of the rows of TABLE that are not accepted; all others are answered by 202, and stored.
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
        "a key for repeats, badly",
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


def scope_of(asked: Asked) -> dict[str, Any]:
    """As granian makes it: names in lower case, values as they came."""
    headers = {"Host": "x", "Authorization": "Bearer alice-key", "Content-Type": "application/json"}
    merged: dict[str, str | None] = {**headers, "Content-Length": str(len(asked.body)), **asked.headers}
    path, _, query = asked.path.partition("?")
    pairs = [(n.lower().encode(), v.encode()) for n, v in merged.items() if v is not None]
    return {
        "type": "http", "http_version": "1.1", "method": asked.method, "raw_path": path.encode(),
        "query_string": query.encode(), "headers": pairs, "server": ("x", "80"), "client": ("y", "1"),
    }  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What a client gets, less the ids and times, which are each submission's own."""

    status: int
    headers: dict[str, str]
    body: bytes


def answer(app: Front, asked: Asked) -> Answer | None:
    """None when there was nobody to answer."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if asked.gone:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": asked.body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope_of(asked), receive, send))
    if not sent:
        return None
    start, rest = sent
    names = [name for name, _ in start["headers"]]
    assert len(set(names)) == len(names)
    headers = {name.decode(): OWN.sub("*", value.decode()) for name, value in start["headers"]}
    return Answer(start["status"], headers, OWN.sub("*", rest["body"].decode()).encode())


@dataclass(frozen=True)
class Api:
    """The api, whole and without its hot route, on one database."""

    whole: Front
    flask: Front
    registry: CollectorRegistry
    admin_url: str

    def stored(self) -> list[Any]:
        """All rows in order, less what is each submission's own; and none is left."""
        with psycopg.connect(self.admin_url) as connection:
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
        flask = Front(
            wired.flask,
            listeners.public(settings),
            authentication=wired.parts.authentication,
            hot_intake=None,
            log=logging.getLogger("test"),
        )
        yield Api(wired.public, flask, registry, postgres.url(database))


def test_both_ways_answer_and_store_the_same(api: Api) -> None:
    differing = {}
    status = {name: status for status, names in REFUSED.items() for name in names}
    for asked in TABLE:
        expected = status.get(asked.name, 202)
        found = (answer(api.whole, asked), api.stored()), (answer(api.flask, asked), api.stored())
        answered, stored = found[0]
        right = answered is not None and answered.status == expected and len(stored) == (expected == 202)
        if found[0] != found[1] or not right:
            differing[asked.name] = found
    assert differing == {}


def test_the_hot_route_takes_plain_submissions_and_leaves_the_rest_to_flask() -> None:
    refused = {"no Host", "compressed"}
    table = [asked for asked in TABLE if asked.name not in refused]
    taken = {asked.name: is_plain(read_head(scope_of(asked)), BYTES_MAX) for asked in table}
    assert taken == {asked.name: asked.hot for asked in table}


def test_both_ways_are_guarded_by_the_same_decision(api: Api) -> None:
    for headers in ({"Authorization": None}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}):
        for app in (api.whole, api.flask):
            refused = answer(app, Asked("", headers=dict(headers)))
            assert refused is not None
            assert refused.status == 401
            assert refused.headers["www-authenticate"] == 'Bearer realm="tidings"'
    assert api.stored() == []


def test_both_ways_are_counted(api: Api) -> None:
    plain = TABLE[0]
    for app in (api.whole, api.flask):
        before = api.counted()
        answered = answer(app, plain)
        assert answered is not None
        assert answered.status == 202
        assert api.counted() == before + 1


def test_a_client_that_left_before_its_body_came_is_not_answered(api: Api) -> None:
    asked = Asked("gone", gone=True)
    assert (answer(api.whole, asked), answer(api.flask, asked)) == (None, None)
    assert api.stored() == []
