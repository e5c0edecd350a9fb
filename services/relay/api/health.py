"""Whether the process is alive, whether it can serve, and its metrics. Open to all, as it reveals nothing about
messages.
"""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.relay.api.call import Call
from services.relay.api.deps import Deps
from services.relay.api.reply import json_reply


async def healthz(_deps: Deps, _call: Call) -> web.Response:
    return json_reply({"status": "ok"})


async def readyz(deps: Deps, _call: Call) -> web.Response:
    if faults := deps.faults():
        return json_reply({"status": "not ready", "faults": dict(faults)}, 503)
    return json_reply({"status": "ok"})


async def metrics(deps: Deps, _call: Call) -> web.Response:
    return web.Response(body=generate_latest(deps.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
