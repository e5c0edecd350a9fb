"""All routes, and the lookup of a request's route. Lookup uses the raw path, which contains the destination unencoded.

`TABLE` is the complete interface: method, path, handler and required right. docs/reference/relay.md lists the same (a
test compares them).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import psycopg
from aiohttp import web

from services.relay.api import (
    bulk_actions,
    contents,
    dead_letters,
    events,
    flow_control,
    health,
    keys,
    labels,
    legacy,
    messages,
    publish,
    queues,
    schedules,
    topics,
)
from services.relay.api.call import Call
from services.relay.api.deps import Deps
from services.relay.api.reply import RefusedError, error_reply
from services.relay.api.server import let_come
from services.relay.memory.byte_budget import NoRoomError
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.publishing import given_token
from services.relay.store.messages import UnstorableError
from services.relay.store.sealing import UnreadableError
from services.relay.store.tokens import Token
from tidings.process.log import fault

Access = Literal["open", "read", "write"]
Handler = Callable[[Deps, Call], Awaitable[web.StreamResponse]]

# A destination is the rest of the raw path, with its own query. A key may contain slashes, and the clients do not
# encode them.
_PARTS = {"{destination}": "(.+)", "{key}": "([^?]+?)"}
# A QSTASH_URL that ends in / or /v2/publish is a common mistake. The path that the client wants then follows it.
_DOUBLED = re.compile(r"^/+(?:v[12]/publish/+)*(?=v[12]/)")

BROKEN_OFF = "the body broke off, or is not framed as HTTP has it"


@dataclass(frozen=True)
class Route:
    """`path` is a template: `{id}` is one part of the path. For `{destination}` and `{key}` see `_PARTS`."""

    method: str
    path: str
    handler: Handler
    access: Access

    @property
    def takes_destination(self) -> bool:
        return "{destination}" in self.path

    def pattern(self) -> re.Pattern[str]:
        parts = re.split(r"(\{[a-z]+\})", self.path)
        text = "".join(_PARTS.get(p, "([^/?]+)") if p.startswith("{") else re.escape(p) for p in parts)
        return re.compile(text, re.DOTALL)


TABLE: tuple[Route, ...] = (
    Route("GET", "/healthz", health.healthz, "open"),
    Route("GET", "/readyz", health.readyz, "open"),
    Route("GET", "/metrics", health.metrics, "open"),
    Route("POST", "/v2/publish/{destination}", publish.publish, "write"),
    Route("POST", "/v2/enqueue/{queue}/{destination}", publish.enqueue, "write"),
    Route("POST", "/v2/batch", publish.batch, "write"),
    Route("GET", "/v2/messages/{id}", messages.get, "read"),
    Route("GET", "/v2/messages/{id}/body/{attempt}", messages.whole_body, "read"),
    Route("DELETE", "/v2/messages/{id}", messages.cancel, "write"),
    Route("DELETE", "/v2/messages", messages.cancel_many, "write"),
    # Ours: live messages, by label.
    Route("POST", "/v2/labels", labels.holding, "write"),
    Route("GET", "/v2/labels", labels.listed, "read"),
    Route("POST", "/v2/contents/remove", contents.remove, "write"),
    Route("GET", "/v2/bulkActions", bulk_actions.listed, "read"),
    Route("GET", "/v2/bulkActions/{id}", bulk_actions.get, "read"),
    Route("POST", "/v2/queues", queues.upsert, "write"),
    Route("GET", "/v2/queues", queues.listed, "read"),
    Route("GET", "/v2/queues/{queue}", queues.get, "read"),
    Route("DELETE", "/v2/queues/{queue}", queues.delete, "write"),
    Route("POST", "/v2/queues/{queue}/pause", queues.pause, "write"),
    Route("POST", "/v2/queues/{queue}/resume", queues.resume, "write"),
    Route("POST", "/v2/schedules/{id}/pause", schedules.pause, "write"),
    Route("PATCH", "/v2/schedules/{id}/pause", schedules.pause, "write"),
    Route("POST", "/v2/schedules/{id}/resume", schedules.resume, "write"),
    Route("PATCH", "/v2/schedules/{id}/resume", schedules.resume, "write"),
    Route("POST", "/v2/schedules/{destination}", schedules.create, "write"),
    Route("GET", "/v2/schedules", schedules.listed, "read"),
    Route("GET", "/v2/schedules/{id}", schedules.get, "read"),
    Route("DELETE", "/v2/schedules/{id}", schedules.delete, "write"),
    Route("GET", "/v2/topics", topics.listed, "read"),
    Route("GET", "/v2/topics/{name}", topics.get, "read"),
    Route("DELETE", "/v2/topics/{name}", topics.delete, "write"),
    Route("PATCH", "/v2/topics/{name}", topics.set_headers, "write"),
    Route("POST", "/v2/topics/{name}/endpoints", topics.add_endpoints, "write"),
    Route("DELETE", "/v2/topics/{name}/endpoints", topics.remove_endpoints, "write"),
    Route("GET", "/v2/dlq", dead_letters.listed, "read"),
    Route("DELETE", "/v2/dlq", dead_letters.delete_many, "write"),
    Route("POST", "/v2/dlq/retry", dead_letters.retry_many, "write"),
    Route("POST", "/v2/dlq/retry/{id}", dead_letters.retry, "write"),
    Route("GET", "/v2/dlq/{id}", dead_letters.get, "read"),
    Route("DELETE", "/v2/dlq/{id}", dead_letters.delete, "write"),
    Route("GET", "/v2/events", events.events, "read"),
    Route("GET", "/v2/logs", events.logs, "read"),
    Route("GET", "/v2/flowControl", flow_control.listed, "read"),
    Route("GET", "/v2/flowControl/{key}", flow_control.get, "read"),
    Route("POST", "/v2/flowControl/{key}/pause", flow_control.pause, "write"),
    Route("POST", "/v2/flowControl/{key}/resume", flow_control.resume, "write"),
    Route("POST", "/v2/flowControl/{key}/resetRate", flow_control.reset_rate, "write"),
    # Some clients from before `resetRate` call this.
    Route("POST", "/v2/flowControl/{key}/reset", flow_control.reset_rate, "write"),
    Route("POST", "/v2/flowControl/{key}/pin", flow_control.pin, "write"),
    Route("POST", "/v2/flowControl/{key}/unpin", flow_control.unpin, "write"),
    Route("POST", "/v2/flowControl/{key}/cooling", flow_control.cooling, "write"),
    Route("GET", "/v2/globalParallelism", flow_control.parallelism, "read"),
    # These keys sign: a read-only token must not be able to forge a delivery.
    Route("GET", "/v2/keys", keys.get, "write"),
    Route("POST", "/v2/keys/rotate", keys.rotate, "write"),
    Route("POST", "/v1/publish/{destination}", publish.publish_v1, "write"),
    Route("GET", "/v1/messages/{id}", legacy.message, "read"),
    Route("DELETE", "/v1/messages/{id}", legacy.cancel, "write"),
    Route("GET", "/v1/messages/{id}/tasks", legacy.tasks, "read"),
    Route("GET", "/v1/topics", legacy.topics, "read"),
    Route("GET", "/v1/topics/{id}", legacy.topic, "read"),
    Route("POST", "/v1/topics", legacy.create_topic, "write"),
    Route("PUT", "/v1/topics/{id}", legacy.rename_topic, "write"),
    Route("DELETE", "/v1/topics/{id}", legacy.delete_topic, "write"),
    Route("GET", "/v1/endpoints", legacy.endpoints, "read"),
    Route("POST", "/v1/endpoints", legacy.create_endpoint, "write"),
    Route("GET", "/v1/endpoints/{id}", legacy.get_endpoint, "read"),
    Route("PUT", "/v1/endpoints/{id}", legacy.move_endpoint, "write"),
    Route("DELETE", "/v1/endpoints/{id}", legacy.delete_endpoint, "write"),
    Route("GET", "/v1/schedules", legacy.schedules, "read"),
    Route("GET", "/v1/schedules/{id}", legacy.schedule, "read"),
    Route("DELETE", "/v1/schedules/{id}", schedules.delete, "write"),
)


@dataclass(frozen=True)
class Found:
    route: Route
    parts: tuple[str, ...]
    query: str


class Finder:
    """Routes by the start of their path, so that a request need not be matched against all of them."""

    def __init__(self, table: Sequence[Route]) -> None:
        self._by_noun: dict[str, list[tuple[Route, re.Pattern[str]]]] = {}
        for route in table:
            self._by_noun.setdefault(_noun(route.path), []).append((route, route.pattern()))

    def find(self, method: str, raw_path: str) -> Found | frozenset[str]:
        """The route, or the methods that the path allows; none: the path is unknown. A HEAD is a
        GET without its body.
        """
        raw = _DOUBLED.sub("/", raw_path)
        path, _, query = raw.partition("?")
        wanted = "GET" if method == "HEAD" else method
        methods: set[str] = set()
        for route, pattern in self._by_noun.get(_noun(path), ()):
            match = pattern.fullmatch(raw if route.takes_destination else path)
            if match is None:
                continue
            if route.method == wanted:
                return Found(route, match.groups(), query)
            methods.add(route.method)
        return frozenset(methods | {"HEAD"} if "GET" in methods else methods)


class Router:
    """The single handler of all requests: it finds the route, checks the caller, and converts errors to answers."""

    def __init__(self, deps: Deps, table: Sequence[Route] = TABLE) -> None:
        self._deps = deps
        self._finder = Finder(table)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        found = self._finder.find(request.method, request.raw_path)
        if not isinstance(found, Found):
            return _not_routed(request.method, found)
        try:
            token = await self._token(request, found)
            await let_come(request)
            with closing(self._deps.memory.holding("" if token is None else token.name)) as holding:
                return await found.route.handler(self._deps, Call(request, found.parts, found.query, token, holding))
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            # The operation it waited for was abandoned, and nothing of it was committed.
            return error_reply(503, "the relay is shutting down", {"Retry-After": "1"})
        except Exception as error:  # noqa: BLE001  every error gets an answer
            return self._refusal(found.route, request, error)

    async def _token(self, request: web.Request, found: Found) -> Token | None:
        """The caller's token. Raises `RefusedError` for a caller that may not use the route."""
        if found.route.access == "open":
            return None
        shown = given_token(found.query)
        if shown is None:
            scheme, _, text = request.headers.get("Authorization", "").partition(" ")
            shown = text.strip() if scheme.lower() == "bearer" else ""
        # Tokens are ASCII. Other text has no bytes to compare.
        token = await self._deps.authenticator.authenticate(shown) if shown and shown.isascii() else None
        if token is None:
            raise RefusedError(
                401, "unauthorized: a bearer token of this relay is needed", {"WWW-Authenticate": "Bearer"}
            )
        if found.route.access == "write" and not token.writes:
            raise RefusedError(403, f"forbidden: token {token.name} may only read")
        return token

    def _refusal(self, route: Route, request: web.Request, error: Exception) -> web.Response:
        match error:
            case InvalidRequestError() | web.RequestPayloadError():
                broken = isinstance(error, web.RequestPayloadError)
                return error_reply(400, BROKEN_OFF if broken else str(error))
            case RefusedError():
                return error_reply(error.status, str(error), error.headers)
            case web.HTTPRequestEntityTooLarge():
                return error_reply(413, f"the body is larger than {self._deps.settings.body_bytes_max} bytes")
            case NoRoomError():
                return error_reply(503, "the relay has no memory for this request now", {"Retry-After": "1"})
            case ConnectionError() if request.transport is None:
                # The client is gone, so no answer is received.
                self._deps.log.info("client_gone", route=route.path)
                return error_reply(400, "the connection was closed")
        self._deps.log.error("request_failed", route=route.path, error=fault(error))
        return _fault(error)


def _fault(error: Exception) -> web.Response:
    match error:
        case UnstorableError():
            return error_reply(400, "the database refuses a value of the request; nothing was accepted")
        case UnreadableError():
            return error_reply(500, str(error))
        case psycopg.OperationalError():
            # When the answer to COMMIT is lost, it is unknown whether the transaction was committed.
            return error_reply(
                503,
                "the database does not answer; whether the request was carried out is not known, and a repeat is safe"
                " with Upstash-Deduplication-Id",
                {"Retry-After": "1"},
            )
        case _:
            return error_reply(500, "internal error")


def _noun(path: str) -> str:
    """`/v2/messages/msg_1` → `v2/messages`."""
    return "/".join(path.split("/", 3)[1:3])


def _not_routed(method: str, methods: frozenset[str]) -> web.Response:
    if not methods:
        return error_reply(404, "not found")
    allowed = ", ".join(sorted(methods | {"OPTIONS"}))
    if method == "OPTIONS":
        return web.Response(status=204, headers={"Allow": allowed})
    return error_reply(405, f"method not allowed; this path has {allowed}", {"Allow": allowed})
