"""Removal of the contents of ended messages, by label: our extension, for senders that must erase what they sent."""

from __future__ import annotations

from aiohttp import web

from services.relay.api.call import Call
from services.relay.api.deps import Deps
from services.relay.api.reply import done_reply
from services.relay.protocol.invalid import InvalidRequestError

# Each label needs some index pages, in the live messages and in the dead letters of each day: 20 ms for this many.
LABELS_MAX = 200
MESSAGE_IDS_MAX = 1000
CHARACTERS_MAX = 256


async def remove(deps: Deps, call: Call) -> web.Response:
    """`POST /v2/contents/remove` `{"labels": ["…", …], "messageIds": ["…", …]}`: removes bodies, answers, dead letters
    and the log's copies. `label` is one label.
    """
    content = await call.json_object()
    labels, ids = content.get("labels", []), content.get("messageIds", [])
    if "label" in content:
        labels = [content["label"], *labels] if isinstance(labels, list) else None
    if not _are_texts(labels, LABELS_MAX) or not labels or not all(labels):
        raise InvalidRequestError(f"labels must be an array of 1 to {LABELS_MAX} strings, or label a string")
    if not _are_texts(ids, MESSAGE_IDS_MAX):
        raise InvalidRequestError(f"messageIds must be an array of up to {MESSAGE_IDS_MAX} strings")
    await deps.contents.remove(labels, ids)
    return done_reply()


def _are_texts(values: object, count_max: int) -> bool:
    return isinstance(values, list) and len(values) <= count_max and all(_is_text(value) for value in values)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value and len(value) <= CHARACTERS_MAX
