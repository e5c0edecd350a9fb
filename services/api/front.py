"""The ASGI application of one port: checks a request's head, authenticates it, reads its body, then hands it to a thread.

No thread waits for a client, so a client that sends slowly, or stops, holds only memory, which `bodies.Room` bounds.
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
# Authenticates a request by its head and answers whose it is; None: by its API key, which may take a query. Raises
# `ProblemError` 401.
Guard = Callable[[Head], "str | None"]

# Requests that may wait for a thread, for each thread: some seconds of work. The next is answered 503 at once.
QUEUE_PER_THREAD = 32
_ALIVE = Answer(200, [(b"content-type", b"application/json")], orjson.dumps({"status": "ok"}))


@dataclass(frozen=True)
class BodyRule:
    """How large a body a route takes, and whose it is by the head alone: its tenant's, or the one who signed it."""

    bytes_max: int
    guard: Guard


@dataclass(frozen=True)
class Listener:
    """What one port serves: `serves` says which paths; `bodies` are the POST routes that read one."""

    serves: Callable[[str], bool]
    bodies: Mapping[str, BodyRule]
    threads: int


class Front:
    """One port's requests. `behind` is Flask; `hot_intake` is None on a port without submissions."""

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
        except Exception as error:  # noqa: BLE001  the edge: every error is an answer
            response = error_response(error, self._log)
            if scope["raw_path"].decode("latin-1") in (*CALLBACKS, STARTS):
                # Of a callback the delays that the dispatcher asked for count; this one would win over them.
                response.headers.pop("Retry-After", None)
            answer = Answer(response.status_code, encoded(response.headers.items()), response.get_data())
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})

    async def _answer(self, scope: Mapping[str, Any], receive: Receive) -> Answer:
        head = read_head(scope)
        if head.path == "/healthz" and head.method in {"GET", "HEAD"}:
            return _ALIVE  # without a thread: they may all wait for Postgres, which a restart would not mend
        if not self._listener.serves(head.path):
            raise ProblemError(404, "there is no such path here")
        if self._intake is not None and hot.is_plain(head, self._inline_max):
            return await self._submitted(self._intake, head, receive)
        rule = self._listener.bodies.get(head.path) if head.method == "POST" else None
        if rule is None:
            # Nothing reads such a body, so it stays with the server, which closes the connection for it.
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
