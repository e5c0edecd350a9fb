"""The first version's forms of messages, topics and schedules. Its publish is in `publish`.

The vendor withdrew this version in December 2023. What clients of that time call is kept: docs/reference/relay.md names
them.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from services.relay.api.call import Call
from services.relay.api.deps import Deps
from services.relay.api.messages import cancel_one
from services.relay.api.reply import done_reply, json_reply, not_found
from services.relay.api.topics import ENDPOINTS_MAX, endpoint
from services.relay.protocol import values
from services.relay.protocol.answers_v1 import (
    endpoint_url_v1,
    message_object_v1,
    schedule_object_v1,
    task_objects_v1,
    topic_name_v1,
    topic_object_v1,
)
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.views import EndpointView, MessageView, TopicView


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
    return json_reply(topic_object_v1(await _topic(deps, topic_name_v1(call.name()))))


async def create_topic(deps: Deps, call: Call) -> web.Response:
    """`POST /v1/topics` of `{"name"}`."""
    name = await _topic_name(call)
    await deps.topics.make(name)
    return json_reply(topic_object_v1(await _topic(deps, name)), 201)


async def rename_topic(deps: Deps, call: Call) -> web.Response:
    """`PUT /v1/topics/{id}` of `{"name"}`."""
    found = await _topic(deps, topic_name_v1(call.name()))
    name = await _topic_name(call)
    if name != found.name and not await deps.topics.rename(found.name, name):
        raise InvalidRequestError(f"there is a topic named {name}")
    return json_reply(topic_object_v1(await _topic(deps, name)))


async def delete_topic(deps: Deps, call: Call) -> web.Response:
    if not await deps.topics.delete(topic_name_v1(call.name())):
        raise not_found(f"topic {call.name()}")
    return done_reply()


async def endpoints(deps: Deps, _call: Call) -> web.Response:
    objects = [topic_object_v1(found) for found in await deps.topics.all()]
    return json_reply([item for found in objects for item in found["endpoints"]])


async def create_endpoint(deps: Deps, call: Call) -> web.Response:
    """`POST /v1/endpoints` of `{"url", "name"?, "topicName" or "topicId"}`. An unknown topic is created."""
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
    return json_reply(await _shown(deps, name, made.url), 201)


async def get_endpoint(deps: Deps, call: Call) -> web.Response:
    return json_reply(await _shown(deps, *await _endpoint(deps, call)))


async def move_endpoint(deps: Deps, call: Call) -> web.Response:
    """`PUT /v1/endpoints/{id}` of `{"url"}`: the name stays, and the id changes with the address."""
    name, url = await _endpoint(deps, call)
    old = await _shown(deps, name, url)
    made = endpoint({"name": old.get("name")} | await call.json_object(), 0)
    # The new endpoint comes first, as a group is removed with its last endpoint.
    await deps.topics.add_endpoints(name, [made])
    if made.url != url:
        await deps.topics.remove_endpoints(name, [EndpointView(url)])
    return json_reply(await _shown(deps, name, made.url))


async def delete_endpoint(deps: Deps, call: Call) -> web.Response:
    name, url = await _endpoint(deps, call)
    await deps.topics.remove_endpoints(name, [EndpointView(url)])
    return done_reply()


async def schedules(deps: Deps, _call: Call) -> web.Response:
    return json_reply([schedule_object_v1(schedule) for schedule in await deps.schedules.all()])


async def schedule(deps: Deps, call: Call) -> web.Response:
    found = await deps.schedules.get(call.name())
    if found is None:
        raise not_found(f"schedule {call.name()}")
    return json_reply(schedule_object_v1(found))


async def _topic_name(call: Call) -> str:
    return values.name(str((await call.json_object()).get("name") or ""), "topic name")


async def _topic(deps: Deps, name: str) -> TopicView:
    found = await deps.topics.get(name)
    if found is None:
        raise not_found(f"topic {name}")
    return found


async def _endpoint(deps: Deps, call: Call) -> tuple[str, str]:
    """The topic's name and the URL that the id in the path identifies."""
    found = endpoint_url_v1(call.name(), await deps.topics.all())
    if found is None:
        raise not_found(f"endpoint {call.name()}")
    return found


async def _shown(deps: Deps, name: str, url: str) -> dict[str, Any]:
    items: list[dict[str, Any]] = topic_object_v1(await _topic(deps, name))["endpoints"]
    shown = next((item for item in items if item["url"] == url), None)
    if shown is None:
        raise not_found(f"endpoint {url}")
    return shown


async def _message(deps: Deps, call: Call) -> MessageView:
    found = await deps.views.get(call.name(), deps.settings.keep_seconds)
    if found is None:
        raise not_found(f"message {call.name()}")
    return found
