"""Flow-control keys: shown, paused and pinned, with their rate window and their cooling; and the total of calls in
flight.
"""

from __future__ import annotations

from aiohttp import web

from services.relay.api.call import Call
from services.relay.api.deps import Deps
from services.relay.api.reply import done_reply, json_reply, not_found
from services.relay.protocol.answers import flow_object, parallelism_object
from services.relay.protocol.flow import KEY_CHARACTERS_MAX, parse_pin, parse_unpin
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.storable import check_text


async def listed(deps: Deps, call: Call) -> web.Response:
    """`GET /v2/flowControl?search=`: the keys whose names contain the text."""
    text = call.parameters("search").get("search", "")
    check_text("search", text)
    return json_reply([flow_object(flow) for flow in await deps.flow_keys.search(text)])


async def get(deps: Deps, call: Call) -> web.Response:
    flow = await deps.flow_keys.get(_key(call))
    if flow is None:
        raise not_found(f"flow-control key {_key(call)}")
    return json_reply(flow_object(flow))


async def pause(deps: Deps, call: Call) -> web.Response:
    await deps.flow_keys.pause(_key(call))
    return done_reply()


async def resume(deps: Deps, call: Call) -> web.Response:
    await deps.flow_keys.resume(_key(call))
    return _changed(deps)


async def pin(deps: Deps, call: Call) -> web.Response:
    """Pin limits, which messages then do not change: `?parallelism=&rate=&period=`."""
    await deps.flow_keys.pin(_key(call), parse_pin(call.query))
    return _changed(deps)


async def unpin(deps: Deps, call: Call) -> web.Response:
    """`?parallelism=true&rate=true&cooling=true`. `cooling` is ours."""
    await deps.flow_keys.unpin(_key(call), parse_unpin(call.query))
    return _changed(deps)


async def reset_rate(deps: Deps, call: Call) -> web.Response:
    await deps.flow_keys.reset_rate(_key(call))
    return _changed(deps)


async def cooling(deps: Deps, call: Call) -> web.Response:
    """`?enabled=false` (ours): a destination's request to wait no longer pauses the key, until it is unpinned."""
    enabled = call.parameters("enabled").get("enabled", "").lower()
    if enabled not in {"true", "false"}:
        raise InvalidRequestError("enabled must be true or false")
    await deps.flow_keys.set_cooling(_key(call), enabled=enabled == "true")
    return _changed(deps)


async def parallelism(deps: Deps, _call: Call) -> web.Response:
    """`GET /v2/globalParallelism`: the total of all processes, which are assumed to have the same settings."""
    active, processes = await deps.flow_keys.all_calls()
    return json_reply(parallelism_object(deps.settings.concurrency_max * processes, active))


def _key(call: Call) -> str:
    key = call.name()
    if not 0 < len(key) <= KEY_CHARACTERS_MAX or not key.isprintable():
        raise InvalidRequestError(f"a flow-control key has 1 to {KEY_CHARACTERS_MAX} printable characters")
    return key


def _changed(deps: Deps) -> web.Response:
    deps.wake(0.0)
    return done_reply()
