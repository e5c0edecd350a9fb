"""Unended messages by label: our extension, by which a sender learns what the relay holds for it."""

from __future__ import annotations

from aiohttp import web

from services.relay.api.call import Call
from services.relay.api.deps import Deps
from services.relay.api.reply import json_reply
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.storable import is_storable

LABELS_MAX = 1000
LETTERS_MAX = 1000
_LIMIT_DEFAULT = 100


async def holding(deps: Deps, call: Call) -> web.Response:
    """`POST /v2/labels` `{"labels": […]}` → `{"live": […], "callbackLetters": {label: [dlqId, …]}}`."""
    labels = (await call.json_object()).get("labels")
    if not isinstance(labels, list) or len(labels) > LABELS_MAX or not all(_storable(label) for label in labels):
        raise InvalidRequestError(f"labels must be an array of up to {LABELS_MAX} strings")
    live, dead_letters = await deps.labels.held(labels, LETTERS_MAX)
    return json_reply({"live": live, "callbackLetters": dead_letters})


async def listed(deps: Deps, call: Call) -> web.Response:
    """`GET /v2/labels?after=&limit=` → `{"live": […]}`: the labels of messages that have not ended, in order."""
    given = call.parameters("after", "limit")
    after, limit = given.get("after", ""), given.get("limit", str(_LIMIT_DEFAULT))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4 and 1 <= int(limit) <= LABELS_MAX):
        raise InvalidRequestError(f"limit must be a whole number from 1 to {LABELS_MAX}")
    if not _storable(after):
        raise InvalidRequestError("after must be a label")
    return json_reply({"live": await deps.labels.next(after, int(limit))})


def _storable(label: object) -> bool:
    return isinstance(label, str) and is_storable(label) and len(label) <= 256
