"""Whether the process lives, whether it can serve, and its figures. Open to all: it tells nothing of messages."""

from __future__ import annotations

import asyncio

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.relay.routes.call import Call
from services.relay.routes.deps import Deps
from services.relay.routes.reply import json_reply

READY_SECONDS = 5.0


async def healthz(_deps: Deps, _call: Call) -> web.Response:
    return json_reply({"status": "ok"})


async def readyz(deps: Deps, _call: Call) -> web.Response:
    try:
        async with asyncio.timeout(READY_SECONDS):
            await deps.messages.next_due_seconds()
    except Exception as error:  # noqa: BLE001  whatever it is, we are not ready
        return json_reply({"status": "not ready", "faults": {"postgres": type(error).__name__}}, 503)
    return json_reply({"status": "ok"})


async def metrics(deps: Deps, _call: Call) -> web.Response:
    return web.Response(body=generate_latest(deps.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
