"""The first version's shapes of messages, topics, schedules and events; its publish stands in `publish`.

The vendor withdrew it in December 2023; applications of that time find here what the archived documentation says.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from services.relay.routes.call import Call
from services.relay.routes.consent import list_filters
from services.relay.routes.deps import Deps
from services.relay.routes.messages import cancel_one
from services.relay.routes.reply import done_reply, json_reply, not_found
from services.relay.routes.topics import ENDPOINTS_MAX, endpoint
from services.relay.wire import values
from services.relay.wire.answers import present
from services.relay.wire.answers_v1 import (
    Quota,
    endpoint_url_v1,
    event_object_v1,
    message_object_v1,
    quota_object_v1,
    schedule_object_v1,
    task_objects_v1,
    topic_name_v1,
    topic_object_v1,
)
from services.relay.wire.filters import Route
from services.relay.wire.invalid import InvalidRequestError
from services.relay.wire.values import DELAY_SECONDS_MAX, RETRIES_MAX, TIMEOUT_MS_MAX
from services.relay.wire.views import EndpointView, MessageView

# Where this relay has no limit of its own; the clients of that time want a number.
UNLIMITED = 2**31 - 1


async def message(deps: Deps, call: Call) -> web.Response:
    return json_reply(message_object_v1(await _message(deps, call), deps.now()))


async def tasks(deps: Deps, call: Call) -> web.Response:
    return json_reply(task_objects_v1(await _message(deps, call)))


async def cancel(deps: Deps, call: Call) -> web.Response:
    await cancel_one(deps, call.name())
    return json_reply({"status": "accepted"}, 202)


async def topics(deps: Deps, _call: Call) -> web.Response:
    return json_reply([topic_object_v1(topic) for topic in await deps.topics.all()])


async def topic(deps: Deps, call: Call) -> web.Response:
    found = await deps.topics.get(topic_name_v1(call.name()))
    if found is None:
        raise not_found(f"topic {call.name()}")
    return json_reply(topic_object_v1(found))


async def delete_topic(deps: Deps, call: Call) -> web.Response:
    if not await deps.topics.delete(topic_name_v1(call.name())):
        raise not_found(f"topic {call.name()}")
    return done_reply()


async def endpoints(deps: Deps, _call: Call) -> web.Response:
    objects = [topic_object_v1(found) for found in await deps.topics.all()]
    return json_reply([item for found in objects for item in found["endpoints"]])


async def create_endpoint(deps: Deps, call: Call) -> web.Response:
    """`POST /v1/endpoints` of `{"url", "name"?, "topicName" or "topicId"}`; the topic is made when unknown."""
    content = await call.json_object()
    given = content.get("topicName") or content.get("topicId")
    if not isinstance(given, str):
        raise InvalidRequestError("topicName or topicId is missing")
    name = values.name(topic_name_v1(given), "topicName")
    made = endpoint(content, 0)
    known = await deps.topics.get(name)
    if known is not None and len({made.url, *(item.url for item in known.endpoints)}) > ENDPOINTS_MAX:
        raise InvalidRequestError(f"a topic has at most {ENDPOINTS_MAX} endpoints")
    await deps.topics.add_endpoints(name, [made])
    found = await deps.topics.get(name)
    items: list[dict[str, Any]] = [] if found is None else topic_object_v1(found)["endpoints"]
    shown = next((item for item in items if item["url"] == made.url), None)
    if shown is None:
        raise not_found(f"endpoint {made.url}")
    return json_reply(shown, 201)


async def delete_endpoint(deps: Deps, call: Call) -> web.Response:
    found = endpoint_url_v1(call.name(), await deps.topics.all())
    if found is None:
        raise not_found(f"endpoint {call.name()}")
    name, url = found
    await deps.topics.remove_endpoints(name, [EndpointView(url)])
    return done_reply()


async def schedules(deps: Deps, _call: Call) -> web.Response:
    return json_reply([schedule_object_v1(schedule) for schedule in await deps.schedules.all()])


async def schedule(deps: Deps, call: Call) -> web.Response:
    found = await deps.schedules.get(call.name())
    if found is None:
        raise not_found(f"schedule {call.name()}")
    return json_reply(schedule_object_v1(found))


async def events(deps: Deps, call: Call) -> web.Response:
    found, cursor = await deps.events.list(list_filters(Route.EVENTS, call.query))
    return json_reply(present({"cursor": cursor, "events": [event_object_v1(event) for event in found]}))


async def quota(deps: Deps, _call: Call) -> web.Response:
    limits = Quota(
        topics_max=UNLIMITED,
        endpoints_per_topic_max=ENDPOINTS_MAX,
        message_bytes_max=deps.settings.body_bytes_max,
        retries_max=RETRIES_MAX,
        schedules_max=UNLIMITED,
        requests_per_day_max=UNLIMITED,
        retention_seconds=int(deps.settings.keep_seconds),
        timeout_seconds=TIMEOUT_MS_MAX // 1000,
        delay_seconds_max=int(DELAY_SECONDS_MAX),
    )
    return json_reply(quota_object_v1(limits))


async def _message(deps: Deps, call: Call) -> MessageView:
    found = await deps.views.get(call.name(), deps.settings.keep_seconds)
    if found is None:
        raise not_found(f"message {call.name()}")
    return found
