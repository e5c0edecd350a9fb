"""Accepted messages: shown, and cancelled one at a time or by filters."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import psycopg
from aiohttp import web

from services.relay.api.bulk_actions import action_id
from services.relay.api.call import Call
from services.relay.api.consent import bulk_filters
from services.relay.api.deps import Deps
from services.relay.api.reply import RefusedError, json_reply, not_found
from services.relay.memory.places import NoPlaceError
from services.relay.protocol.answers import message_object
from services.relay.protocol.filters import Filters, Route
from services.relay.store.chunks import MissingPieceError

# The most messages that one transaction cancels. More would hold its locks too long.
CANCEL_MAX = 500
# Half a million messages. The next request takes the rest.
ROUNDS_MAX = 1000
ATTEMPT = re.compile(r"[0-9]{1,9}", re.ASCII)
# A reader takes 384 KiB of a kept answer in this time: 13 KB/s. A slower one holds a place that others of its token
# need.
PIECE_SECONDS = 30.0
# The JavaScript client always sends this count and does not repeat the request, as the vendor ignores it since
# September 2026.
COUNT_OF_THE_CLIENT = 100


async def get(deps: Deps, call: Call) -> web.Response:
    """`GET /v2/messages/{id}`. A message is found until some time after its end."""
    message = await deps.views.get(call.name(), deps.settings.keep_seconds)
    if message is None:
        raise not_found(f"message {call.name()}")
    return json_reply(message_object(message, deps.now()))


async def whole_body(deps: Deps, call: Call) -> web.StreamResponse:
    """`GET /v2/messages/{id}/body/{attempt}`: the whole of an answer that was too large for its callback. Ours."""
    attempt = call.name(1)
    answer = await deps.bodies.kept(call.name(), int(attempt)) if ATTEMPT.fullmatch(attempt) else None
    if answer is None:
        raise not_found(f"a kept answer of attempt {attempt} of message {call.name()}")
    response = web.StreamResponse(headers={"Content-Type": answer.content_type, "Content-Length": str(answer.size)})
    if call.request.method == "HEAD":
        await response.prepare(call.request)
        return response
    try:
        async with deps.bodies.reading(call.owner), aclosing(deps.bodies.read(answer)) as pieces:
            await response.prepare(call.request)
            await _write_all(call, response, pieces)
    except NoPlaceError as error:
        raise RefusedError(429, str(error), {"Retry-After": "1"}) from None
    return response


async def _write_all(call: Call, response: web.StreamResponse, pieces: AsyncGenerator[bytes, None]) -> None:
    """If a body breaks off, its connection is closed: another answer would be read as the rest of the body."""
    try:
        async for piece in pieces:
            async with asyncio.timeout(PIECE_SECONDS):
                await response.write(piece)
    except (TimeoutError, MissingPieceError, psycopg.Error, OSError):
        if call.request.transport is not None:
            call.request.transport.abort()


async def cancel(deps: Deps, call: Call) -> web.Response:
    """`DELETE /v2/messages/{id}`."""
    return json_reply({"cancelled": await cancel_one(deps, call.name())}, 202)


async def cancel_one(deps: Deps, message_id: str) -> int:
    """Return 1 when the message is cancelled, now or before, as a request may be repeated when its answer was lost.
    Return 0 when it ended otherwise. Raises `RefusedError` when it is unknown.
    """
    if await _cancel(deps, [message_id]):
        return 1
    state = await deps.views.state(message_id, deps.settings.keep_seconds)
    if state is None:
        raise not_found(f"message {message_id}")
    return int(state == "cancelled")


async def cancel_many(deps: Deps, call: Call) -> web.Response:
    """`DELETE /v2/messages`: cancels all matching messages, or as many as an explicit count allows."""
    started_at = deps.now()
    filters = bulk_filters(
        Route.MESSAGES_BULK, call.query, await call.json_body(), call.headers, deps.settings.bulk_without_filter
    )
    count = 0 if filters is None else await _cancel_matching(deps, filters)
    answer: dict[str, object] = {"cancelled": count}
    if filters is not None and not filters.message_ids:
        answer["actionId"] = action_id(count, started_at, deps.now())
    return json_reply(answer)


async def _cancel_matching(deps: Deps, filters: Filters) -> int:
    if filters == Filters(message_ids=filters.message_ids) and filters.message_ids:
        return await _cancel(deps, filters.message_ids)
    left = CANCEL_MAX * ROUNDS_MAX
    if filters.count not in {None, COUNT_OF_THE_CLIENT}:
        left = filters.count or 0
    total = 0
    for _ in range(ROUNDS_MAX):
        wanted = min(left - total, CANCEL_MAX)
        ids = await deps.views.select_ids(filters, wanted) if wanted else []
        count = await _cancel(deps, ids)
        total += count
        # Without progress the selected messages have ended meanwhile.
        if len(ids) < CANCEL_MAX or not count:
            break
    return total


async def _cancel(deps: Deps, ids: Sequence[str]) -> int:
    cancelled = await deps.messages.cancel(ids) if ids else []
    for message_id in cancelled:
        deps.abort(message_id)
    if cancelled:
        deps.metrics.cancelled.inc(len(cancelled))
        # Other messages may take the freed slots.
        deps.wake(0.0)
    return len(cancelled)
