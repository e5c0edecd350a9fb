"""Messages that were accepted: shown, and cancelled one at a time or by filters."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from services.relay.routes.bulk_actions import action_id
from services.relay.routes.call import Call
from services.relay.routes.consent import bulk_filters
from services.relay.routes.deps import Deps
from services.relay.routes.reply import json_reply, not_found
from services.relay.wire.answers import message_object
from services.relay.wire.filters import Filters, Route

# One transaction cancels so many; more would hold its locks for long.
CANCEL_MAX = 500
# The JavaScript client adds this count to each request that has none, and does not look again: it bounds nothing.
COUNT_OF_CLIENTS = 100
# Half a million messages. What is left after that is left for the next request.
ROUNDS_MAX = 1000


async def get(deps: Deps, call: Call) -> web.Response:
    """`GET /v2/messages/{id}`, until some time after its end."""
    message = await deps.views.get(call.name(), deps.settings.keep_seconds)
    if message is None:
        raise not_found(f"message {call.name()}")
    return json_reply(message_object(message, deps.now()))


async def cancel(deps: Deps, call: Call) -> web.Response:
    """`DELETE /v2/messages/{id}`."""
    return json_reply({"cancelled": await cancel_one(deps, call.name())}, 202)


async def cancel_one(deps: Deps, message_id: str) -> int:
    """0 when it has ended. Raises `RefusedError` when it is unknown."""
    if await _cancel(deps, [message_id]):
        return 1
    if await deps.views.get(message_id, deps.settings.keep_seconds) is None:
        raise not_found(f"message {message_id}")
    return 0


async def cancel_many(deps: Deps, call: Call) -> web.Response:
    """`DELETE /v2/messages`: all that match, or as many of them as a `count` says that is not the client's own."""
    started_at = deps.now()
    filters = bulk_filters(
        Route.MESSAGES_BULK, call.query, await call.body(), call.headers, deps.settings.bulk_without_filter
    )
    count = 0 if filters is None else await _cancel_matching(deps, filters)
    answer: dict[str, object] = {"cancelled": count}
    if filters is not None and not filters.message_ids:
        answer["actionId"] = action_id(count, started_at, deps.now())
    return json_reply(answer)


async def _cancel_matching(deps: Deps, filters: Filters) -> int:
    if filters == Filters(message_ids=filters.message_ids) and filters.message_ids:
        return await _cancel(deps, filters.message_ids)
    total = 0
    bound = CANCEL_MAX * ROUNDS_MAX if filters.count in {None, COUNT_OF_CLIENTS} else int(filters.count or 0)
    for _ in range(ROUNDS_MAX):
        wanted = min(CANCEL_MAX, bound - total)
        ids = await deps.views.select_ids(filters, wanted) if wanted else []
        count = await _cancel(deps, ids)
        total += count
        # Without progress they ended by themselves meanwhile.
        if len(ids) < wanted or not count:
            break
    return total


async def _cancel(deps: Deps, ids: Sequence[str]) -> int:
    cancelled = await deps.messages.cancel(ids) if ids else []
    for message_id in cancelled:
        deps.abort(message_id)
    if cancelled:
        deps.metrics.cancelled.inc(len(cancelled))
        # Others may take the places of these.
        deps.wake(0.0)
    return len(cancelled)
