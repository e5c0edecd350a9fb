"""Schedules: created or replaced, shown, removed, paused and resumed."""

from __future__ import annotations

from aiohttp import web

from services.relay.api.call import Call
from services.relay.api.deps import Deps
from services.relay.api.drafting import Asked, Drafter
from services.relay.api.rates import check_rate
from services.relay.api.reply import REFUSALS, done_reply, json_reply, not_found
from services.relay.message import Stored
from services.relay.protocol.address import destination, separated
from services.relay.protocol.answers import schedule_object
from services.relay.protocol.publishing import options_of
from services.relay.protocol.schedule import new_schedule_id, schedule_draft


async def create(deps: Deps, call: Call) -> web.Response:
    """`POST /v2/schedules/{destination}`. An existing `Upstash-Schedule-Id` replaces that schedule."""
    return json_reply({"scheduleId": await create_schedule(deps, call)})


async def create_schedule(deps: Deps, call: Call, protocol: int = 2) -> str:
    """Create the schedule of a request and return its id. Raises `InvalidRequestError`."""
    address, query = separated(call.parts[0])
    body = await call.take(deps.bodies)
    try:
        asked = Asked(address, options_of(call.headers, query), body, call.caller_ip, protocol)
        return await _create(deps, call, asked)
    except REFUSALS:
        if isinstance(body, Stored):
            await deps.bodies.release(body.key)
        raise


async def _create(deps: Deps, call: Call, asked: Asked) -> str:
    now = deps.now()
    target = await Drafter(deps.topics, now.timestamp()).resolve(destination(asked.address))
    drafted = schedule_draft(
        target,
        asked.options,
        asked.body,
        new_id=new_schedule_id(),
        protocol=asked.protocol,
        caller_ip=asked.caller_ip,
    )
    # The firings are charged to the token later.
    check_rate(deps, call, 1)
    await deps.schedules.upsert(drafted, now, call.token)
    deps.rescheduled()
    return drafted.schedule_id


async def listed(deps: Deps, call: Call) -> web.Response:
    await call.holding.take_page()
    return json_reply([schedule_object(schedule) for schedule in await deps.schedules.all()])


async def get(deps: Deps, call: Call) -> web.Response:
    schedule = await deps.schedules.get(call.name())
    if schedule is None:
        raise not_found(f"schedule {call.name()}")
    return json_reply(schedule_object(schedule))


async def delete(deps: Deps, call: Call) -> web.Response:
    """The messages that it has published continue."""
    if not await deps.schedules.delete(call.name()):
        raise not_found(f"schedule {call.name()}")
    return done_reply()


async def pause(deps: Deps, call: Call) -> web.Response:
    if not await deps.schedules.pause(call.name()):
        raise not_found(f"schedule {call.name()}")
    return done_reply()


async def resume(deps: Deps, call: Call) -> web.Response:
    """Firings missed during the pause are skipped."""
    if not await deps.schedules.resume(call.name(), deps.now()):
        raise not_found(f"schedule {call.name()}")
    deps.rescheduled()
    return done_reply()
