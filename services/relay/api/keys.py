"""The keys of the signature, and their rotation."""

from __future__ import annotations

from dataclasses import asdict

from aiohttp import web

from services.relay.api.call import Call
from services.relay.api.deps import Deps
from services.relay.api.reply import json_reply


async def get(deps: Deps, _call: Call) -> web.Response:
    """`GET /v2/keys`."""
    return json_reply(asdict(await deps.signing_keys.refresh()))


async def rotate(deps: Deps, _call: Call) -> web.Response:
    """`POST /v2/keys/rotate`: the next one becomes the current one."""
    return json_reply(asdict(await deps.signing_keys.rotate()))
