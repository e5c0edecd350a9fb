"""The ASGI application of one port. It checks the head of a request, authenticates the request, reads the body, and
then passes it to a thread.

No thread waits for a client. A slow or silent client uses only memory, which `bodies.Room` bounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from logging import Logger
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import orjson

from services.api import hot
from services.api.authentication import Authentication
from services.api.bodies import ClientGoneError, Room, read_body
from services.api.bridge import Answer, call, encoded, environ_of
from services.api.head import Head, read_head
from services.api.intake import Intake, accepted, accepted_headers
from services.api.problem import ProblemError, error_response
from services.api.relay_signature import CALLBACKS, STARTS

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from services.api.bodies import Receive

P = ParamSpec("P")
T = TypeVar("T")
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
# Authenticates a request by its head and returns the owner of its body. None means by the API key, which may need a
# query. Raises `ProblemError` 401.
Guard = Callable[[Head], "str | None"]

# The number of requests per thread that may wait for a thread: some seconds of work. The next request gets a 503 at
# once.
QUEUE_PER_THREAD = 32
_ALIVE = Answer(200, [(b"content-type", b"application/json")], orjson.dumps({"status": "ok"}))


@dataclass(frozen=True)
class BodyRule:
    """The size limit of a route's bodies, and their owner, which the head determines: the tenant, or the signer."""

    bytes_max: int
    guard: Guard


@dataclass(frozen=True)
class Listener:
    """The configuration of one port: `serves` decides which paths; `bodies` lists the POST routes that read a body."""

    serves: Callable[[str], bool]
    bodies: Mapping[str, BodyRule]
    threads: int


class Front:
    """Serves the requests of one port. `behind` is Flask; `hot_intake` is None on a port without submissions."""

    def __init__(
        self,
        behind: WSGIApplication,
        listener: Listener,
        *,
        authentication: Authentication,
        hot_intake: Intake | None,
        log: Logger,
        room: Room | None = None,
    ) -> None:
        self._behind = behind
        self._listener = listener
        self._authentication = authentication
        self._intake = hot_intake
        submissions = listener.bodies.get(hot.PATH)
        self._inline_max = min(hot.INLINE_BYTES_MAX, submissions.bytes_max if submissions else 0)
        self._log = log
        self._room = room or Room()
        self._threads = ThreadPoolExecutor(listener.threads, thread_name_prefix="request")
        self._queued = 0
        self._queue_max = listener.threads * QUEUE_PER_THREAD

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(scope, receive)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001  the outermost layer: every error becomes a response
            response = error_response(error, self._log)
            if scope["raw_path"].decode("latin-1") in (*CALLBACKS, STARTS):
                # For a callback the delays that the dispatcher set apply; a Retry-After would override them.
                response.headers.pop("Retry-After", None)
            answer = Answer(response.status_code, encoded(response.headers.items()), response.get_data())
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})

    async def _answer(self, scope: Mapping[str, Any], receive: Receive) -> Answer:
        head = read_head(scope)
        if head.path == "/healthz" and head.method in {"GET", "HEAD"}:
            return _ALIVE  # without a thread: all may wait for Postgres, and a restart would not help
        if not self._listener.serves(head.path):
            raise ProblemError(404, "there is no such path here")
        if self._intake is not None and hot.is_plain(head, self._inline_max):
            return await self._submitted(self._intake, head, receive)
        rule = self._listener.bodies.get(head.path) if head.method == "POST" else None
        if rule is None:
            # No route reads this body, so it remains with the server, which then closes the connection.
            return await self._by_flask(head, b"", scope)
        owner = rule.guard(head) or await self._tenant(head.headers.get("authorization", ""))
        size = _room_of(head, rule)
        await self._room.take(owner, size)
        try:
            body = await read_body(receive, head.length(), rule.bytes_max)
            return await self._by_flask(head, body, scope)
        finally:
            self._room.give_back(owner, size)

    async def _submitted(self, intake: Intake, head: Head, receive: Receive) -> Answer:
        tenant = await self._tenant(head.headers["authorization"])
        length = head.length() or 0
        await self._room.take(tenant, length)
        try:
            body = await read_body(receive, length, self._inline_max)
            row = await hot.submit(intake, tenant, head, body)
        finally:
            self._room.give_back(tenant, length)
        content = orjson.dumps(accepted(row))
        headers = {"Content-Type": "application/json", **accepted_headers(row), "Content-Length": str(len(content))}
        return Answer(202, encoded(headers.items()), content)

    async def _by_flask(self, head: Head, body: bytes, scope: Mapping[str, Any]) -> Answer:
        return await self._in_thread(call, self._behind, environ_of(head, body, scope))

    async def _tenant(self, authorization: str) -> str:
        known = self._authentication.known_tenant_of(authorization)
        return await self._in_thread(self._authentication.tenant_of, authorization) if known is None else known

    async def _in_thread(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        if self._queued >= self._queue_max:
            raise ProblemError(503, "too many requests at once; try again", Retry_After="1")
        self._queued += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *arguments, **named))
        finally:
            self._queued -= 1


def _room_of(head: Head, rule: BodyRule) -> int:
    length = head.length()
    return rule.bytes_max if length is None else min(length, rule.bytes_max)
