"""Bulk actions. In this relay a request by filters is complete when it is answered, so its id contains all there is to
report.

There is no history, so the list is empty.
"""

from __future__ import annotations

import re
from datetime import datetime

from aiohttp import web

from services.relay.api.call import Call
from services.relay.api.deps import Deps
from services.relay.api.reply import json_reply, not_found
from services.relay.protocol.callback import milliseconds

_ID = re.compile(r"bulk_([0-9]{1,15})_([0-9]{1,15})_([0-9]{1,12})", re.ASCII)


def action_id(count: int, started_at: datetime, ended_at: datetime) -> str:
    return f"bulk_{milliseconds(started_at)}_{milliseconds(ended_at)}_{count}"


async def listed(_deps: Deps, _call: Call) -> web.Response:
    """`GET /v2/bulkActions`."""
    return json_reply({"bulkActions": []})


async def get(_deps: Deps, call: Call) -> web.Response:
    """`GET /v2/bulkActions/{id}`."""
    match = _ID.fullmatch(call.name())
    if match is None:
        raise not_found(f"bulk action {call.name()}")
    return json_reply(
        {
            "actionId": match[0],
            "kind": "cancel",
            "state": "FINISHED",
            "total": int(match[3]),
            "processed": int(match[3]),
            "createdAt": int(match[1]),
            "completedAt": int(match[2]),
        }
    )
