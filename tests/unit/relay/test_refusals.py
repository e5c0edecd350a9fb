"""The answer to a request that is refused: its status and text, without internal details."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import orjson
import psycopg
import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from services.relay.api.call import Call
from services.relay.api.deps import Deps
from services.relay.api.publish import check_amount
from services.relay.api.rates import check_rate
from services.relay.api.reply import RefusedError, done_reply, not_found
from services.relay.api.router import Access, Route, Router
from services.relay.memory.byte_budget import NoRoomError
from services.relay.memory.memory import Memory
from services.relay.message import Draft
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.store.sealing import UnreadableError
from services.relay.store.tokens import Token

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WRITER = Token("writer", writes=True, publishes_per_second=5)
READER = Token("reader", writes=False, publishes_per_second=None)


class Doorman:
    """An authenticator that knows two tokens and grants `room` publishes."""

    def __init__(self, room: int = 10) -> None:
        self.room = room
        self.asked: list[str] = []

    async def authenticate(self, token: str) -> Token | None:
        self.asked.append(token)
        return {"writer": WRITER, "reader": READER}.get(token)

    def wait_seconds(self, _token: Token, publishes: int = 1) -> float:
        return 0.0 if publishes <= self.room else 1.2


def deps(doorman: Doorman | None = None) -> Deps:
    parts = SimpleNamespace(
        authenticator=doorman or Doorman(),
        settings=SimpleNamespace(body_bytes_max=1024),
        memory=Memory(),
        log=structlog.get_logger(),
        now=lambda: NOW,
    )
    return cast("Deps", parts)


async def fine(_deps: Deps, _call: Call) -> web.Response:
    return done_reply()


def raising(error: BaseException) -> Callable[[Deps, Call], Any]:
    async def handler(_deps: Deps, _call: Call) -> web.Response:
        raise error

    return handler


def answer(
    handler: Callable[[Deps, Call], Any] = fine,
    access: Access = "write",
    *,
    path: str = "/v2/thing",
    method: str = "POST",
    doorman: Doorman | None = None,
    authorization: str = "",
) -> web.Response:
    router = Router(deps(doorman), [Route("POST", "/v2/thing", handler, access)])
    request = make_mocked_request(method, path, headers={"Authorization": authorization} if authorization else {})
    response = asyncio.run(router.answer(request))
    assert isinstance(response, web.Response)
    return response


def error(response: web.Response) -> tuple[int, str]:
    assert response.content_type == "application/json"
    content = orjson.loads(cast("bytes", response.body))
    assert list(content) == ["error"]
    return response.status, content["error"]


def test_a_known_token_is_accepted_as_bearer_or_in_the_query() -> None:
    assert answer(authorization="Bearer writer").status == 200
    assert answer(authorization="bearer  writer ").status == 200
    assert answer(path="/v2/thing?qstash_token=writer").status == 200
    assert answer(path="/v2/thing?qstash_token=writer", authorization="Basic of-the-sender").status == 200


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", "Bearer nobody", "Basic writer", "writer", "Bearer wrïter"])
def test_no_other_token_is_accepted(given: str) -> None:
    response = answer(authorization=given)
    assert error(response)[0] == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_wrong_token_in_the_query_is_refused_despite_a_valid_header() -> None:
    assert error(answer(path="/v2/thing?qstash_token=nobody", authorization="Bearer writer"))[0] == 401


def test_a_read_only_token_may_not_write() -> None:
    assert error(answer(authorization="Bearer reader")) == (403, "forbidden: token reader may only read")
    assert answer(access="read", authorization="Bearer reader").status == 200


def test_open_routes_require_no_token() -> None:
    doorman = Doorman()
    assert answer(access="open", doorman=doorman).status == 200
    assert doorman.asked == []


def test_no_handler_runs_without_authorization() -> None:
    assert error(answer(raising(AssertionError("it ran"))))[0] == 401


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        (InvalidRequestError("the field is wrong"), 400, "the field is wrong"),
        (not_found("message msg_1"), 404, "message msg_1 not found"),
        (web.HTTPRequestEntityTooLarge(1024, 2048), 413, "the body is larger than 1024 bytes"),
        (NoRoomError(), 503, "the relay has no memory for this request now"),
        (web.RequestPayloadError("ZZ"), 400, "the body broke off, or is not framed as HTTP has it"),
        (UnreadableError("its key is gone"), 500, "its key is gone"),
        (RuntimeError("SELECT secret"), 500, "internal error"),
        (
            psycopg.OperationalError("host=secret"),
            503,
            "the database does not answer; whether the request was carried out is not known, and a repeat is safe with Upstash-Deduplication-Id",
        ),
        (asyncio.CancelledError(), 503, "the relay is shutting down"),
    ],
)
def test_each_error_has_its_status_and_shows_no_secret(fault: BaseException, status: int, text: str) -> None:
    assert error(answer(raising(fault), authorization="Bearer writer")) == (status, text)


def test_an_unknown_path_and_an_unknown_method_are_distinguished() -> None:
    assert error(answer(path="/v2/nothing")) == (404, "not found")
    response = answer(method="DELETE")
    assert error(response)[0] == 405
    assert response.headers["Allow"] == "OPTIONS, POST"


def test_the_methods_are_shown_without_a_token() -> None:
    response = answer(method="OPTIONS")
    assert (response.status, response.headers["Allow"]) == (204, "OPTIONS, POST")


def test_a_token_over_its_rate_gets_the_time_of_its_next_request_in_the_headers_that_clients_read() -> None:
    async def publishing(parts: Deps, call: Call) -> web.Response:
        check_rate(parts, call, 3)
        return done_reply()

    assert answer(publishing, doorman=Doorman(room=3), authorization="Bearer writer").status == 200
    response = answer(publishing, doorman=Doorman(room=2), authorization="Bearer writer")
    assert error(response) == (429, "rate limit of the token: 5 messages a second")
    assert response.headers["Retry-After"] == "2"
    assert response.headers["Burst-RateLimit-Limit"] == "5"
    assert int(response.headers["Burst-RateLimit-Reset"]) == int(NOW.timestamp()) + 2


def test_a_text_that_is_not_valid_unicode_is_quoted() -> None:
    status, text = error(answer(raising(InvalidRequestError("not \udcff")), authorization="Bearer writer"))
    assert (status, text) == (400, "not ?")


@pytest.mark.parametrize(("count", "size"), [(10_001, 0), (257, 1024 * 1024)])
def test_a_publish_to_a_group_has_a_limit_of_bytes(count: int, size: int) -> None:
    draft = Draft("https://a.example", "POST", {}, b"x" * size)
    check_amount([draft] * (count - 1))
    with pytest.raises(RefusedError) as refused:
        check_amount([draft] * count)
    assert refused.value.status == 413
