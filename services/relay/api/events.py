"""The events of messages: `/v2/events` and `/v2/logs`, which differ in the key, one spelling and the page size."""

from __future__ import annotations

from aiohttp import web

from services.relay.api.call import Call
from services.relay.api.consent import list_filters
from services.relay.api.deps import Deps
from services.relay.api.reply import json_reply
from services.relay.protocol.answers import event_object, present
from services.relay.protocol.filters import Route


async def events(deps: Deps, call: Call) -> web.Response:
    filters = list_filters(Route.EVENTS, call.query)
    await call.holding.take_page()
    found, cursor = await deps.events.list(filters)
    return json_reply(present({"cursor": cursor, "events": [event_object(event) for event in found]}))


async def logs(deps: Deps, call: Call) -> web.Response:
    filters = list_filters(Route.LOGS, call.query)
    await call.holding.take_page()
    found, cursor = await deps.events.list(filters)
    return json_reply(present({"cursor": cursor, "logs": [event_object(event, "logs") for event in found]}))
