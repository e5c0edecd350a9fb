"""`POST /v1/submissions`, from a request with a complete body to its reply. It knows neither Flask nor a server.

`asgi.py` calls `submit_async` for each such request. `submit` is the same for a thread, and serves the Flask view.
A header is read, and added to the reply, here and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from services.api.acceptance import Acceptor, accepted, accepted_headers
from services.api.models import idempotency_key, parse_json, traceparent
from services.api.presentation import RETRY_AFTER_SECONDS, submission
from services.api.problem import ProblemError
from services.api.reply import Reply, json_reply
from services.api.row import Row, Stored
from services.api.store import Store
from tidings.contract.ids import SubmissionId

PATH = "/v1/submissions"
# Parsing a body of this size delays every other request for about a millisecond; a larger body goes to a thread.
INLINE_BYTES_MAX = 64 * 1024
# Runs a function, which may wait for Postgres, in a thread.
InThread = Callable[..., Awaitable[Any]]


class Headers(Protocol):
    """Request headers by name. Names in lower case find a header in any case."""

    def get(self, name: str, /) -> str | None: ...


class SubmitRequest(NamedTuple):
    """The parts of a request that have a meaning; `tenant` is the owner of its API key.

    A tuple costs a third of a frozen dataclass, and each request makes one.
    """

    tenant: str
    content_type: str
    idempotency_key: str | None
    traceparent: str | None
    body: bytes


def read_request(tenant: str, headers: Headers, body: bytes) -> SubmitRequest:
    return SubmitRequest(
        tenant=tenant,
        content_type=headers.get("content-type") or "",
        idempotency_key=headers.get("idempotency-key"),
        traceparent=headers.get("traceparent"),
        body=body,
    )


class Submit:
    """Answers requests to submit. Its functions raise `ProblemError` and the exceptions of the commit."""

    def __init__(self, acceptor: Acceptor, store: Store) -> None:
        self._acceptor = acceptor
        self._store = store

    def submit(self, request: SubmitRequest) -> Reply:
        row = self._row(request)
        stored = self._acceptor.accept(row)
        return self._shown(stored, row.tenant) if stored.repeated else _accepted(row)

    async def submit_async(self, request: SubmitRequest, in_thread: InThread) -> Reply:
        """`submit` for the event loop: small bodies are parsed in it, and the commit is awaited without a thread."""
        large = len(request.body) > INLINE_BYTES_MAX
        row = await in_thread(self._row, request) if large else self._row(request)
        stored = await self._acceptor.accept_async(row)
        if stored.repeated:
            reply: Reply = await in_thread(self._shown, stored, row.tenant)
            return reply
        return _accepted(row)

    def _row(self, request: SubmitRequest) -> Row:
        content = parse_json(request.body, request.content_type)
        key = idempotency_key(request.idempotency_key)
        return self._acceptor.row(request.tenant, content, key=key, trace=traceparent(request.traceparent))

    def _shown(self, stored: Stored, tenant: str) -> Reply:
        return shown(self._store, tenant, stored.id)


def _accepted(row: Row) -> Reply:
    return json_reply(accepted(row), 202, accepted_headers(row))


def shown(store: Store, tenant: str, id_: SubmissionId) -> Reply:
    """Return a stored submission. Raises `ProblemError` 404 if the tenant has none with this id."""
    found = store.get(tenant, id_)
    if found is None:
        raise ProblemError(404, "there is no such submission")
    content = submission(*found, datetime.now(UTC))
    headers = {} if content["outcome"] is not None else {"Retry-After": str(RETRY_AFTER_SECONDS)}
    reply = json_reply(content, 200, headers)
    etag = hashlib.sha1(reply.body, usedforsecurity=False).hexdigest()
    return Reply(reply.status, {**reply.headers, "ETag": f'"{etag}"'}, reply.body)
