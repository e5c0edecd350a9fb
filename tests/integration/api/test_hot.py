"""The hot route and Flask's view of the same path are one api: the same requests get the same answers and store the same."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import orjson
import psycopg
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from werkzeug.test import EnvironBuilder

from services.api.composition import wire
from services.api.hot import HotRoute, plain_length
from services.api.settings import ApiSettings
from tests.infra.postgres import PostgresServer
from tests.process import ROOT
from tidings.migrate import add_api_key

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

BYTES_MAX = 2048
GOOD = {"target": "demo-images", "input": {"prompt": "a"}}
GOOD_BODY = orjson.dumps(GOOD)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OWN = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[\d:.]+Z")


@dataclass(frozen=True)
class Asked:
    """A request; `hot` says who is to answer it. Headers of None are left out."""

    name: str
    body: bytes = GOOD_BODY
    headers: dict[str, str | None] = field(default_factory=dict)
    method: str = "POST"
    path: str = "/v1/submissions"
    hot: bool = True
    stream: io.RawIOBase | None = None


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


def environ_of(asked: Asked) -> dict[str, Any]:
    """As granian makes it: the body ends by itself, and has a length when the client said one."""
    headers = {"Authorization": "Bearer alice-key", "Content-Type": "application/json"} | asked.headers
    environ = EnvironBuilder(asked.path, method=asked.method).get_environ()
    environ |= {"wsgi.input": asked.stream or io.BytesIO(asked.body), "wsgi.input_terminated": True}
    environ |= {"CONTENT_LENGTH": str(len(asked.body))}
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        key = key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"
        environ.pop(key, None)
        if value is not None:
            environ[key] = value.encode().decode("latin-1")
    return environ


@dataclass(frozen=True)
class Answer:
    """What a client gets, less the ids and times, which are each submission's own."""

    status: str
    headers: dict[str, str]
    body: bytes


def answer(app: WSGIApplication, asked: Asked) -> Answer:
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Any:
        started.append((status, headers))

    chunks = app(environ_of(asked), start_response)
    body = b"".join(chunks)
    cast("Any", getattr(chunks, "close", lambda: None))()
    [(status, headers)] = started
    assert len({name.lower() for name, _ in headers}) == len(headers)
    return Answer(status, {name: OWN.sub("*", value) for name, value in headers}, OWN.sub("*", body.decode()).encode())


@dataclass(frozen=True)
class Api:
    """The api, whole and without its hot route, on one database."""

    whole: WSGIApplication
    flask: WSGIApplication
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
        hot = wire(settings, registry, closing).wsgi_app
        assert isinstance(hot, HotRoute)
        yield Api(hot, hot.behind, registry, postgres.url(database))


def test_both_ways_answer_and_store_the_same(api: Api) -> None:
    differing = {}
    for asked in TABLE:
        found = (answer(api.whole, asked), api.stored()), (answer(api.flask, asked), api.stored())
        if found[0] != found[1]:
            differing[asked.name] = found
    assert differing == {}


def test_the_hot_route_takes_plain_submissions_and_leaves_the_rest_to_flask() -> None:
    taken = {asked.name: plain_length(environ_of(asked), BYTES_MAX) is not None for asked in TABLE}
    assert taken == {asked.name: asked.hot for asked in TABLE}


def test_both_ways_are_guarded_by_the_same_decision(api: Api) -> None:
    for headers in ({"Authorization": None}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}):
        for app in (api.whole, api.flask):
            refused = answer(app, Asked("", headers=dict(headers)))
            assert refused.status == "401 UNAUTHORIZED"
            assert refused.headers["WWW-Authenticate"] == 'Bearer realm="tidings"'
    assert api.stored() == []


def test_both_ways_are_counted(api: Api) -> None:
    plain = TABLE[0]
    for app in (api.whole, api.flask):
        before = api.counted()
        assert answer(app, plain).status == "202 ACCEPTED"
        assert api.counted() == before + 1


class Broken(io.RawIOBase):
    """A body whose reading fails."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def readable(self) -> bool:
        return True

    def readinto(self, _: Any) -> int:
        raise self._error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConnectionResetError("of the inside"), "400 BAD REQUEST"),
        (RuntimeError("of the inside"), "500 INTERNAL SERVER ERROR"),
    ],
)
def test_a_body_that_cannot_be_read_is_answered_the_same_and_tells_nothing(
    api: Api, error: Exception, status: str
) -> None:
    asked = Asked("broken", stream=Broken(error))
    whole, flask = answer(api.whole, asked), answer(api.flask, asked)
    assert whole == flask
    assert whole.status == status
    assert b"of the inside" not in whole.body.replace(b"an internal error", b"")
