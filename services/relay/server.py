"""The protocol over HTTP. Routes are matched on the raw path, because a destination stands in it as it is."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from structlog.stdlib import BoundLogger

from services.relay.message import Draft
from services.relay.metrics import RelayMetrics
from services.relay.pump import Pump
from services.relay.settings import RelaySettings
from services.relay.intake import Intake
from services.relay.store.messages import Accepted, Messages
from services.relay.wire.answers import message_object
from services.relay.wire.invalid import InvalidRequestError
from services.relay.wire.publishing import GroupName, destination, draft, options_of, separated

BATCH_MAX = 1000
FILTERS_MAX = 500


class Server:
    """Builds the application; `deps` are what the routes work with."""

    def __init__(
        self,
        store: Messages,
        intake: Intake,
        pump: Pump,
        settings: RelaySettings,
        metrics: RelayMetrics,
        registry: CollectorRegistry,
        log: BoundLogger,
    ) -> None:
        self._store = store
        self._intake = intake
        self._pump = pump
        self._settings = settings
        self._metrics = metrics
        self._registry = registry
        self._log = log
        # (method, pattern of the raw path, handler, needs the token)
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Awaitable[web.Response]], bool]] = [
            ("GET", re.compile(r"/healthz"), self._healthz, False),
            ("GET", re.compile(r"/readyz"), self._readyz, False),
            ("GET", re.compile(r"/metrics"), self._metrics_text, False),
            ("POST", re.compile(r"/v([12])/publish/(.+)", re.DOTALL), self._publish, True),
            ("POST", re.compile(r"/v2/batch"), self._batch, True),
            ("GET", re.compile(r"/v([12])/messages/([^/?]+)"), self._get, True),
            ("DELETE", re.compile(r"/v([12])/messages/([^/?]+)"), self._cancel, True),
            ("DELETE", re.compile(r"/v2/messages"), self._cancel_many, True),
        ]

    def application(self) -> web.Application:
        app = web.Application(client_max_size=self._settings.body_bytes_max)
        app.router.add_route("*", "/{path:.*}", self._dispatch)
        return app

    async def _dispatch(self, request: web.Request) -> web.Response:
        raw = request.raw_path
        # A destination has its own query, so only other paths are cut at theirs.
        path = raw if "/publish/" in raw else raw.partition("?")[0]
        known = False
        for method, pattern, handler, guarded in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            known = True
            if method != request.method:
                continue
            if guarded and not self._authorized(request):
                return _error(401, "unauthorized: a bearer token of this relay is needed")
            try:
                return await handler(request, *match.groups())
            except InvalidRequestError as error:
                return _error(400, str(error))
            except web.HTTPRequestEntityTooLarge:
                return _error(413, f"the body is larger than {self._settings.body_bytes_max} bytes")
            except Exception as error:  # noqa: BLE001  answered with 500; nothing was committed
                self._log.error("request_failed", route=pattern.pattern, error=f"{type(error).__name__}: {error}"[:300])
                return _error(500, "internal error; the request was not accepted")
        return _error(405, "method not allowed") if known else _error(404, "not found")

    def _authorized(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        expected = self._settings.token.get_secret_value().encode()
        return hmac.compare_digest(given.strip().encode(), expected) and scheme.lower() == "bearer"

    async def _publish(self, request: web.Request, version: str, tail: str) -> web.Response:
        body = await request.read()
        protocol = int(version)
        address, query = separated(tail)
        options = options_of(request.headers, query)
        asked = _draft(address, options, body, protocol=protocol, caller_ip=request.remote or "")
        [accepted] = await self._accept([asked])
        status = 202 if accepted.deduplicated else 201 if protocol == 1 else 200
        return _json(status, _published(accepted))

    async def _batch(self, request: web.Request) -> web.Response:
        try:
            items = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            raise InvalidRequestError("the body is not JSON") from None
        if not isinstance(items, list) or not 0 < len(items) <= BATCH_MAX:
            raise InvalidRequestError(f"the body must be an array of 1 to {BATCH_MAX} messages")
        drafts: list[Draft | str] = [_item(item, request.remote or "") for item in items]
        accepted = iter(await self._accept([item for item in drafts if isinstance(item, Draft)]))
        answers = [{"error": item} if isinstance(item, str) else _published(next(accepted)) for item in drafts]
        return _json(200, answers)

    async def _accept(self, drafts: list[Draft]) -> list[Accepted]:
        if not drafts:
            return []
        accepted = await self._intake.accept(drafts)
        self._metrics.accepted.labels("message").inc(len(drafts))
        return accepted

    async def _get(self, _request: web.Request, _version: str, message_id: str) -> web.Response:
<<<<<<< .merge_file_3d1ZZC
        row = await self._store.show(message_id)
        return _error(404, f"message {message_id} not found") if row is None else _json(200, message_object(row))
=======
        row = await self._store.get(message_id)
        return (
            _error(404, f"message {message_id} not found")
            if row is None
            else _json(200, message_object(row, datetime.now(UTC)))
        )
>>>>>>> .merge_file_2dAU5A

    async def _cancel(self, _request: web.Request, version: str, message_id: str) -> web.Response:
        cancelled = await self._abort([message_id], [])
        if cancelled:
            return _json(202, {"status": "accepted"} if version == "1" else {"cancelled": 1})
        if await self._store.show(message_id) is None:
            return _error(404, f"message {message_id} not found")
        return _json(202, {"cancelled": 0})

    async def _cancel_many(self, request: web.Request) -> web.Response:
        body = await request.read()
        content = orjson.loads(body) if body.strip() else {}
        query = parse_qs(request.raw_path.partition("?")[2])
        ids = _values(query.get("messageIds", [])) + _strings(content, "messageIds")
        labels = _values(query.get("label", [])) + _strings(content, "label")
        if unknown := set(query) - {"messageIds", "label"}:
            raise InvalidRequestError(f"unknown filter {min(unknown)!r}")
        if not ids and not labels:
            raise InvalidRequestError("a filter is needed: messageIds or label")
        if len(ids) + len(labels) > FILTERS_MAX:
            raise InvalidRequestError(f"more than {FILTERS_MAX} values")
        return _json(200, {"cancelled": len(await self._abort(ids, labels))})

    async def _abort(self, ids: list[str], labels: list[str]) -> list[str]:
        cancelled = await self._store.cancel([*ids, *await self._store.labelled(labels, 500)])
        for message_id in cancelled:
            self._pump.abort(message_id)
        self._metrics.cancelled.inc(len(cancelled))
        return cancelled

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _json(200, {"status": "ok"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        try:
            await self._store.next_due_seconds()
        except Exception as error:  # noqa: BLE001  whatever it is, we are not ready
            return _json(503, {"status": "not ready", "faults": {"postgres": type(error).__name__}})
        return _json(200, {"status": "ok"})

    async def _metrics_text(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), content_type="text/plain")


def _item(item: Any, caller_ip: str) -> Draft | str:
    """One message of a batch, or why it is refused. Null fields count as absent, as the vendor's clients send them."""
    if not isinstance(item, dict) or not isinstance(item.get("destination"), str):
        return "destination is missing"
    headers, body = item.get("headers") or {}, item.get("body") or ""
    if not isinstance(body, str) or not isinstance(headers, dict):
        return "headers must be an object and body a string"
    if item.get("queue"):
        return "queues are not supported yet"
    try:
        named = {str(name): str(value) for name, value in headers.items() if value is not None}
        return _draft(item["destination"], named, body.encode(), protocol=2, caller_ip=caller_ip)
    except InvalidRequestError as error:
        return str(error)


def _draft(address: str, options: Mapping[str, str], body: bytes, *, protocol: int, caller_ip: str) -> Draft:
    found = destination(address)
    url = found.as_host() if isinstance(found, GroupName) else found
    if url is None:
        raise InvalidRequestError(f"no URL group {found.text!r}; a URL begins with http:// or https://")
    return draft(url.text, options, body, now_seconds=time.time(), protocol=protocol, caller_ip=caller_ip)


def _published(accepted: Accepted) -> dict[str, Any]:
    content: dict[str, Any] = {"messageId": accepted.message_id}
    if accepted.deduplicated:
        content["deduplicated"] = True
    return content


def _values(items: list[str]) -> list[str]:
    return [value for item in items for value in item.split(",") if value]


def _strings(content: Any, name: str) -> list[str]:
    values = content.get(name, []) if isinstance(content, dict) else []
    return [values] if isinstance(values, str) else [str(value) for value in values]


def _json(status: int, content: Any) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(content), content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    return _json(status, {"error": message})
