"""Queues: created or changed, shown, removed, paused and resumed."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from services.relay.api.call import Call
from services.relay.api.deps import Deps
from services.relay.api.reply import done_reply, json_reply, not_found
from services.relay.protocol import values
from services.relay.protocol.answers import queue_object
from services.relay.protocol.invalid import InvalidRequestError

PARALLELISM_MAX = 10_000


async def upsert(deps: Deps, call: Call) -> web.Response:
    """`POST /v2/queues` of `{"queueName", "parallelism", "paused"?}`."""
    content = await call.json_object()
    await deps.queues.upsert(_name(content.get("queueName")), _parallelism(content), paused=_paused(content))
    deps.wake(0.0)
    return done_reply()


async def listed(deps: Deps, _call: Call) -> web.Response:
    return json_reply([queue_object(queue) for queue in await deps.queues.all()])


async def get(deps: Deps, call: Call) -> web.Response:
    queue = await deps.queues.get(call.name())
    if queue is None:
        raise not_found(f"queue {call.name()}")
    return json_reply(queue_object(queue))


async def delete(deps: Deps, call: Call) -> web.Response:
    """Messages that wait for a slot in the queue are cancelled."""
    if not await deps.queues.delete(call.name()):
        raise not_found(f"queue {call.name()}")
    return done_reply()


async def pause(deps: Deps, call: Call) -> web.Response:
    """The pause is immediate. Calls in flight continue."""
    await deps.queues.pause(_name(call.name()))
    return done_reply()


async def resume(deps: Deps, call: Call) -> web.Response:
    await deps.queues.resume(_name(call.name()))
    deps.wake(0.0)
    return done_reply()


def _name(given: Any) -> str:
    if not isinstance(given, str):
        raise InvalidRequestError("queueName is missing or not text")
    return values.name(given, "queueName")


def _parallelism(content: dict[str, Any]) -> int:
    number = content.get("parallelism")
    if number is None:
        return 1
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= PARALLELISM_MAX:
        raise InvalidRequestError(f"parallelism must be a whole number from 1 to {PARALLELISM_MAX}")
    return number


def _paused(content: dict[str, Any]) -> bool | None:
    paused = content.get("paused")
    if paused is not None and not isinstance(paused, bool):
        raise InvalidRequestError("paused must be true or false")
    return paused
