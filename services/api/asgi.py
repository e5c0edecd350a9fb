"""The ASGI application of one port. It checks the head of a request, authenticates the request, reads the body, and
then passes it to the function of the route, or to Flask in a thread.

No thread waits for a client. A slow or silent client uses only memory, which `bodies.BodyMemory` bounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from logging import Logger
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from services.api.authentication import Authentication
from services.api.bodies import BodyMemory, ClientGoneError, read_body
from services.api.head import Head, read_head
from services.api.problem import ProblemError, error_reply
from services.api.relay_signature import CALLBACKS, STARTS
from services.api.reply import Reply, json_reply
from services.api.submit import InThread
from services.api.wsgi import call, environ_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from services.api.bodies import Receive

P = ParamSpec("P")
T = TypeVar("T")
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
# Authenticates a request by its head and returns the owner of its body. None means by the API key, which may need a
# query. Raises `ProblemError` 401.
Authenticate = Callable[[Head], "str | None"]
# Answers a request of an owner with a complete body, in the event loop. Work that may block goes to `InThread`.
Endpoint = Callable[[str, Head, bytes, InThread], Awaitable[Reply]]

# The number of requests per thread that may wait for a thread: some seconds of work. The next request gets a 503 at
# once.
QUEUE_PER_THREAD = 32
_ALIVE = json_reply({"status": "ok"})


@dataclass(frozen=True)
class BodyRule:
    """The size limit of a route's bodies, and their owner, which the head determines: the tenant, or the signer.

    Flask answers a route without an endpoint.
    """

    bytes_max: int
    authenticate: Authenticate
    endpoint: Endpoint | None = None


@dataclass(frozen=True)
class Listener:
    """The configuration of one port: `serves` decides which paths; `bodies` lists the POST routes that read a body."""

    serves: Callable[[str], bool]
    bodies: Mapping[str, BodyRule]
    threads: int


class AsgiApp:
    """Serves the requests of one port. `flask` is a WSGI application."""

    def __init__(
        self,
        flask: WSGIApplication,
        listener: Listener,
        *,
        authentication: Authentication,
        log: Logger,
        memory: BodyMemory | None = None,
    ) -> None:
        self._flask = flask
        self._listener = listener
        self._authentication = authentication
        self._log = log
        self._memory = memory or BodyMemory()
        self._threads = ThreadPoolExecutor(listener.threads, thread_name_prefix="request")
        self._queued = 0
        self._queue_max = listener.threads * QUEUE_PER_THREAD

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        try:
            reply = await self._reply(scope, receive)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001  the outermost layer: every error becomes a response
            reply = error_reply(error, self._log)
            if scope["raw_path"].decode("latin-1") in (*CALLBACKS, STARTS):
                # For a callback the delays that the dispatcher set apply; a Retry-After would override them.
                kept = {name: value for name, value in reply.headers.items() if name != "Retry-After"}
                reply = Reply(reply.status, kept, reply.body)
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body, "more_body": False})

    async def _reply(self, scope: Mapping[str, Any], receive: Receive) -> Reply:
        head = read_head(scope)
        if head.path == "/healthz" and head.method in {"GET", "HEAD"}:
            return _ALIVE  # without a thread: all may wait for Postgres, and a restart would not help
        if not self._listener.serves(head.path):
            raise ProblemError(404, "there is no such path on this port")
        rule = self._listener.bodies.get(head.path) if head.method == "POST" else None
        if rule is None:
            # No route reads this body, so it remains with the server, which then closes the connection.
            return await self._by_flask(head, b"", scope)
        owner = rule.authenticate(head) or await self._tenant(head.headers.get("authorization", ""))
        length = head.length()
        size = rule.bytes_max if length is None else min(length, rule.bytes_max)
        await self._memory.reserve(owner, size)
        try:
            body = await read_body(receive, length, rule.bytes_max)
            if rule.endpoint is not None:
                return await rule.endpoint(owner, head, body, self._in_thread)
            return await self._by_flask(head, body, scope)
        finally:
            self._memory.release(owner, size)

    async def _by_flask(self, head: Head, body: bytes, scope: Mapping[str, Any]) -> Reply:
        return await self._in_thread(call, self._flask, environ_of(head, body, scope))

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
