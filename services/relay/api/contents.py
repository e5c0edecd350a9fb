"""Removing the contents of what has ended, by label: an extension of ours, for senders who must erase what they sent."""

from __future__ import annotations

from aiohttp import web

from services.relay.api.call import Call
from services.relay.api.deps import Deps
from services.relay.api.reply import done_reply
from services.relay.protocol.invalid import InvalidRequestError

MESSAGE_IDS_MAX = 1000
CHARACTERS_MAX = 256


async def remove(deps: Deps, call: Call) -> web.Response:
    """`POST /v2/contents/remove` `{"label": "…", "messageIds": ["…", …]}`: bodies, answers, dead letters and the log's copies."""
    content = await call.json_object()
    label, ids = content.get("label"), content.get("messageIds", [])
    if not _is_text(label) or not label:
        raise InvalidRequestError("label must be a string")
    if not isinstance(ids, list) or len(ids) > MESSAGE_IDS_MAX or not all(_is_text(id_) for id_ in ids):
        raise InvalidRequestError(f"messageIds must be an array of up to {MESSAGE_IDS_MAX} strings")
    await deps.contents.remove(label, ids)
    return done_reply()


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value and len(value) <= CHARACTERS_MAX
