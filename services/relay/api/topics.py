"""URL groups (topics in the protocol): their endpoints, and the default headers of messages published to them."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from services.relay.api.call import Call
from services.relay.api.deps import Deps
from services.relay.api.reply import done_reply, json_reply, not_found
from services.relay.protocol import values
from services.relay.protocol.address import absolute, encoded
from services.relay.protocol.answers import topic_object
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.publishing import draft, merged
from services.relay.protocol.storable import check_text
from services.relay.protocol.views import EndpointView

ENDPOINTS_MAX = 100
HEADERS_MAX = 100
# The URL is in an index.
URL_BYTES_MAX = 2048


async def listed(deps: Deps, _call: Call) -> web.Response:
    return json_reply([topic_object(topic) for topic in await deps.topics.all()])


async def get(deps: Deps, call: Call) -> web.Response:
    topic = await deps.topics.get(call.name())
    if topic is None:
        raise not_found(f"URL group {call.name()}")
    return json_reply(topic_object(topic))


async def delete(deps: Deps, call: Call) -> web.Response:
    """Removing an unknown group succeeds: the vendor's clients remove a group before they create it."""
    await deps.topics.delete(call.name())
    return done_reply()


async def add_endpoints(deps: Deps, call: Call) -> web.Response:
    """`POST /v2/topics/{name}/endpoints` of `{"endpoints": [{"url", "name"?}]}`. An unknown group is created."""
    name = values.name(call.name(), "URL group name")
    content = await call.json_object()
    endpoints = [endpoint(item, index) for index, item in enumerate(_endpoints(content))]
    for noun, given in (("url", [e.url for e in endpoints]), ("name", [e.name for e in endpoints if e.name])):
        if len(set(given)) < len(given):
            raise InvalidRequestError(f"two endpoints have the same {noun}")
    known = await deps.topics.get(name)
    urls = {item.url for item in endpoints} | {item.url for item in ([] if known is None else known.endpoints)}
    if len(urls) > ENDPOINTS_MAX:
        raise InvalidRequestError(f"a URL group has at most {ENDPOINTS_MAX} endpoints")
    await deps.topics.add_endpoints(name, endpoints)
    return done_reply()


async def remove_endpoints(deps: Deps, call: Call) -> web.Response:
    """`DELETE /v2/topics/{name}/endpoints`, each by its name or URL. Without endpoints the group is removed."""
    asked = [_removed(item, index) for index, item in enumerate(_endpoints(await call.json_object()))]
    # The stored form, and the text as written, which older groups have.
    removed = asked + [EndpointView(encoded(one.url), one.name) for one in asked]
    if not await deps.topics.remove_endpoints(call.name(), removed):
        raise not_found(f"URL group {call.name()}")
    return done_reply()


async def set_headers(deps: Deps, call: Call) -> web.Response:
    """`PATCH /v2/topics/{name}` of `{"headers": {name: value or values}}`, which replace the previous ones."""
    name = values.name(call.name(), "URL group name")
    headers = (await call.json_object()).get("headers")
    if not isinstance(headers, dict) or len(headers) > HEADERS_MAX:
        raise InvalidRequestError(f"headers must be an object of at most {HEADERS_MAX} names")
    defaults = merged({header: _values(header, value) for header, value in headers.items() if value is not None}, {})
    # Headers that would make each publish fail are refused here.
    draft("https://group.invalid", defaults, b"", now_seconds=deps.now().timestamp())
    await deps.topics.set_headers(name, defaults)
    return done_reply()


def endpoint(item: Any, index: int) -> EndpointView:
    """An endpoint in a request. Raises `InvalidRequestError`."""
    url, name = _fields(item, index)
    if not url:
        raise InvalidRequestError(f"url of endpoint {index} is missing")
    address = absolute(url, f"endpoint {index}")
    if len(address.encode()) > URL_BYTES_MAX:
        raise InvalidRequestError(f"url of endpoint {index} is longer than {URL_BYTES_MAX} bytes")
    return EndpointView(address, None if not name else values.name(name, "endpoint name"))


def _removed(item: Any, index: int) -> EndpointView:
    url, name = _fields(item, index)
    if not url and not name:
        raise InvalidRequestError(f"endpoint {index} must have a name or a url")
    check_text(f"endpoint {index}", url + name)
    return EndpointView(url, name or None)


def _fields(item: Any, index: int) -> tuple[str, str]:
    if not isinstance(item, dict):
        raise InvalidRequestError(f"endpoint {index} must be an object")
    url, name = item.get("url") or "", item.get("name") or ""
    if not isinstance(url, str) or not isinstance(name, str):
        raise InvalidRequestError(f"url and name of endpoint {index} must be text")
    return url, name


def _endpoints(content: dict[str, Any]) -> list[Any]:
    endpoints = content.get("endpoints")
    if not isinstance(endpoints, list) or not 0 < len(endpoints) <= ENDPOINTS_MAX:
        raise InvalidRequestError(f"endpoints must be an array of 1 to {ENDPOINTS_MAX}")
    return endpoints


def _values(name: str, given: Any) -> list[str]:
    items = given if isinstance(given, list) else [given]
    if not all(isinstance(item, str) for item in items):
        raise InvalidRequestError(f"header {name[:50]!r} must be text or a list of texts")
    return items
